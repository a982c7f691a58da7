// Numbers of one answer from the values of its tokens. Nothing here communicates.
#pragma once

#include <span>
#include <vector>

namespace mrp::shard {

/// Share of the lowest tokens that Min-K % and Min-K++ look at.
inline constexpr double kMinKShare = 0.4;

/// 1 − k/n, k the first token from which every one is the model's first choice; 0 if the last is
/// not (there is no such k). Source: OpenUnlearning, whose code gives 1/n in that case.
double extraction_strength(std::span<const bool> is_argmax);

/// −mean of the lowest max(⌊share · n⌋, 1) values. Of log p it is Min-K % (arXiv 2310.16789), of
/// (log p − μ)/σ Min-K++ (arXiv 2404.02936); higher means less likely a member.
/// NaN if any value is.
double min_k(std::vector<double> values, double share);

}  // namespace mrp::shard
