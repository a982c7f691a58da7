// Linear layers split over the tensor ranks, after Megatron-LM (arXiv 1909.08053, section 3).
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "dist/partition.hpp"
#include "shard/model/parameter.hpp"
#include "shard/model/tensor_collectives.hpp"
#include "shard/model/weights.hpp"

namespace mrp::shard {

/// The rows (output features) that a rank holds of a module of the checkpoint.
struct ModuleRows {
  std::string module;       ///< without ".weight" and ".bias"
  std::int64_t height = 0;  ///< of the whole weight
  dist::Range rows;
};

/// Output features are split: y_local = x W_localᵀ + b_local. No communication.
class ColumnParallelLinear {
 public:
  /// Several modules that read the same `inputs` features become one product; their outputs follow
  /// each other. Reads "<module>.weight" and, if `biased`, "<module>.bias". Not collective;
  /// `collectives` must outlive the layer.
  ColumnParallelLinear(const WeightReader& weights, const std::vector<ModuleRows>& modules,
                       std::int64_t inputs, bool biased, const TensorCollectives& collectives);
  /// Not collective; its gradient is.
  torch::Tensor forward(const torch::Tensor& x) const;
  /// For inference only: see pack_weight.
  void pack();
  /// Weight, then bias if there is one; both have `prototype`'s input and shared rows.
  void add_parameters(const Parameter& prototype, std::vector<Parameter>& all);

 private:
  torch::Tensor weight_;  // [local outputs × inputs]
  torch::Tensor bias_;    // [local outputs] or undefined
  std::vector<ModuleRows> modules_;
  const TensorCollectives* collectives_;
};

/// Input features are split: y = Σ over ranks of x_local W_localᵀ, plus b once. y is complete on
/// all ranks.
class RowParallelLinear {
 public:
  /// Reads the columns `inputs` of "<module>.weight" [outputs × width] and, if `biased`, the whole
  /// "<module>.bias". Not collective; `collectives` must outlive the layer.
  RowParallelLinear(const WeightReader& weights, const std::string& module, std::int64_t outputs,
                    std::int64_t width, dist::Range inputs, bool biased,
                    const TensorCollectives& collectives);
  /// Collective over the tensor ranks.
  torch::Tensor forward(const torch::Tensor& x_local) const;
  /// For inference only: see pack_weight. Does nothing where sums over ranks need wide products.
  void pack();
  void add_parameters(const Parameter& prototype, std::vector<Parameter>& all);

 private:
  /// Whether states of this type and place are summed over ranks in fp32 (without gradients).
  bool sums_wide(const torch::Tensor& states) const;
  /// Without gradients, bf16 on the host is rounded once, after the sum: the result depends on the
  /// number of ranks no more than fp32 sums do.
  torch::Tensor sum_over_ranks(const torch::Tensor& x_local) const;

  torch::Tensor weight_;  // [outputs × local inputs]
  torch::Tensor bias_;    // [outputs] or undefined
  std::string module_;
  std::int64_t width_;
  dist::Range inputs_;
  const TensorCollectives* collectives_;
};

}  // namespace mrp::shard
