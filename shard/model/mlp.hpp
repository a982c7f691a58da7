// The gated feed-forward block, split over the tensor ranks.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>

#include "shard/model/architecture.hpp"
#include "shard/model/parallel_linear.hpp"
#include "shard/model/tensor_collectives.hpp"
#include "shard/model/weights.hpp"

namespace mrp::shard {

class Mlp {
 public:
  /// Not collective. @throws InputError for an activation that is not supported (lists the
  /// supported).
  Mlp(const WeightReader& weights, const Architecture& architecture, const io::ModelConfig& config,
      std::int64_t layer, const TensorCollectives& collectives);

  /// act(gate(x)) · up(x): [.. × hidden] → this rank's [.. × intermediate / tensor].
  torch::Tensor gated(const torch::Tensor& x) const;
  /// Collective over the tensor ranks. down_proj, complete on all ranks.
  torch::Tensor down(const torch::Tensor& gated_local) const;
  /// For inference only: see pack_weight.
  void pack();
  void add_parameters(std::int64_t layer, std::vector<Parameter>& all);

 private:
  using Activation = torch::Tensor (*)(const torch::Tensor&);
  Activation activation_;
  ColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace mrp::shard
