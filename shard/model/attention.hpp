// Causal self-attention with grouped key-value heads, split over the tensor ranks by heads.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "shard/model/architecture.hpp"
#include "shard/model/parallel_linear.hpp"
#include "shard/model/placement.hpp"
#include "shard/model/tensor_collectives.hpp"
#include "shard/model/weights.hpp"

namespace mrp::shard {

/// Heads of one tensor rank. With fewer kv heads than ranks, several ranks hold the same kv head.
struct HeadSlice {
  dist::Range heads;
  dist::Range kv_heads;
};
/// @pre heads and kv heads divide as check_tensor_size demands.
HeadSlice slice_heads(const io::ModelConfig& config, int tensor_size, int tensor_rank);

class Attention {
 public:
  /// Not collective.
  Attention(const WeightReader& weights, const Architecture& architecture,
            const io::ModelConfig& config, std::int64_t layer,
            const TensorCollectives& collectives);

  /// The concatenated heads of this rank: [batch × length × hidden] → [batch × length × heads /
  /// tensor · head_dim]. `layer` is this one, for the cache.
  torch::Tensor mix(const torch::Tensor& x, const Placement& placement, std::int64_t layer) const;
  /// Collective over the tensor ranks. o_proj, complete on all ranks.
  torch::Tensor project(const torch::Tensor& mixed_local) const;
  /// For inference only: see pack_weight.
  void pack();
  /// `sharers`: the ranks with the same kv heads, null if there are no others.
  void add_parameters(std::int64_t layer, const TensorCollectives* sharers,
                      std::vector<Parameter>& all);

 private:
  HeadSlice slice_;
  std::int64_t head_dim_;
  ColumnParallelLinear qkv_;
  RowParallelLinear o_;
};

}  // namespace mrp::shard
