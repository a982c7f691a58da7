// Weights in the order in which products of bf16 read them.
#pragma once

#include <torch/types.h>

namespace mrp::shard {

/// The weight [outputs × inputs] as oneDNN's product keeps it for itself, so that it is not laid
/// out anew in every call; only apply_weight can read it. The weight itself where that does not
/// pay: unless it is large, bf16, on the CPU, and the CPU multiplies bf16 itself.
torch::Tensor pack_weight(const torch::Tensor& weight);

/// x Wᵀ + b of x [... × inputs] and a weight that may be packed; without bias if it is undefined.
/// No gradients where the weight is packed.
torch::Tensor apply_weight(const torch::Tensor& x, const torch::Tensor& weight,
                           const torch::Tensor& bias = {});

}  // namespace mrp::shard
