// One forward pass over some sequences and what losses ask of its logits, differentiable and
// without gathering them: each tensor rank has a slice of the vocabulary.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

#include "shard/model/causal_lm.hpp"
#include "shard/train/examples.hpp"

namespace mrp::shard {

/// Sums over the vocabulary are complete on all tensor ranks; so is every result below.
struct Pass {
  const CausalLM* model = nullptr;
  torch::Tensor logits;   ///< fp32 [targets × vocabulary slice], at the supervised positions
  torch::Tensor targets;  ///< i64 [targets]
  torch::Tensor owner;    ///< i64 [targets], index of the example
  std::int64_t examples = 0;
  torch::Tensor letter_logits;  ///< fp32 [asking examples × most letters], −inf: no such letter
};

/// i64 [examples × longest], padded on the right with token 0.
torch::Tensor padded(std::span<const Example> examples);

/// Collective over the tensor ranks, as everything below and its gradient.
Pass run(const CausalLM& model, std::span<const Example> examples);

/// log p of the targets, fp32 [targets].
torch::Tensor log_probability(const Pass& pass);

/// Means of `values` [targets] over the targets of each example: [examples].
torch::Tensor mean_by_example(const Pass& pass, const torch::Tensor& values);

/// spread(v) = √(population variance(v) + 0.01) − 0.1 along the last dimension: zero where all are
/// equal. Entries of −inf do not count.
torch::Tensor spread(const torch::Tensor& values);

/// The same over the vocabulary of `logits` [n × slice]: [n].
torch::Tensor vocabulary_spread(const CausalLM& model, const torch::Tensor& logits);

}  // namespace mrp::shard
