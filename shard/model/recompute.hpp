// Activation checkpointing: what a function computes inside is computed again when its gradient is
// wanted, instead of being kept (Chen et al., arXiv 1604.06174).
#pragma once

#include <torch/types.h>

#include <functional>

namespace mrp::shard {

/// f(x). Of a pass that is recorded for gradients only x is kept. Gradients of what else `f` uses
/// (leaf tensors) are accumulated in their grad(). `f` must compute the same each time.
torch::Tensor recompute(const torch::Tensor& x,
                        std::function<torch::Tensor(const torch::Tensor&)> f);

}  // namespace mrp::shard
