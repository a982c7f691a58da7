// Products of bf16 matrices whose sums are not rounded to bf16.
#pragma once

#include <torch/types.h>

namespace mrp::shard {

/// x Wᵀ in fp32 [... × outputs] of x [... × inputs] and W [outputs × inputs], both bf16, on the
/// CPU: a part of a sum over ranks, which is rounded once when it is complete. No gradients.
torch::Tensor wide_product(const torch::Tensor& x, const torch::Tensor& weight);

}  // namespace mrp::shard
