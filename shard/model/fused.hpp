// Element-wise steps of a layer, each in one pass over the memory of a processor. Other devices,
// types and shapes take LibTorch's operations. All can be differentiated.
#pragma once

#include <torch/types.h>

#include <array>

#include "shard/model/rotary.hpp"

namespace mrp::shard {

/// x / √(mean(x²) + eps) · weight over the last dimension of x [… × width]; statistics in fp32,
/// rounded to the type of x before the weight is applied.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// silu(gate) ⊙ up of gate_up [… × 2n], gate before up: [… × n].
torch::Tensor gated_silu(const torch::Tensor& gate_up);

/// Query, key and value, each [batch × its heads × length × head_dim], of qkv [batch × length ×
/// (heads + 2 kv heads) · head_dim]; query and key are rotated.
std::array<torch::Tensor, 3> split_and_rotate(const torch::Tensor& qkv, std::int64_t heads,
                                              std::int64_t kv_heads, const RotaryTable& table);

/// Softmax of scale · scores [… × rows × length] over the last dimension; row i sees the first
/// i mod length + 1 entries, or, of a packed batch, those that `seen` says (i32 [batch × length ×
/// 3], shard/packing.hpp); the others are 0. @pre rows is a multiple of length
torch::Tensor causal_softmax(const torch::Tensor& scores, double scale,
                             const torch::Tensor& seen = {});

}  // namespace mrp::shard
