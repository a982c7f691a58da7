#include "shard/model/parallel_linear.hpp"

#include <torch/utils.h>

#include "shard/model/packed_weight.hpp"
#include "shard/model/wide_product.hpp"

namespace mrp::shard {

ColumnParallelLinear::ColumnParallelLinear(const WeightReader& weights,
                                           const std::vector<ModuleRows>& modules,
                                           std::int64_t inputs, bool biased,
                                           const TensorCollectives& collectives)
    : modules_(modules), collectives_(&collectives) {
  std::vector<torch::Tensor> rows;
  std::vector<torch::Tensor> biases;
  for (const ModuleRows& part : modules) {
    rows.push_back(
        weights.matrix({part.module + ".weight", part.height, inputs, part.rows, {0, inputs}}));
    if (biased) biases.push_back(weights.vector(part.module + ".bias", part.height, part.rows));
  }
  weight_ = rows.size() == 1 ? rows.front() : torch::cat(rows);
  if (biased) bias_ = torch::cat(biases);
}

torch::Tensor ColumnParallelLinear::forward(const torch::Tensor& x) const {
  return apply_weight(copy_to_ranks(x, *collectives_), weight_, bias_);
}

void ColumnParallelLinear::pack() {
  weight_ = pack_weight(weight_);
}

void ColumnParallelLinear::add_parameters(const Parameter& prototype, std::vector<Parameter>& all) {
  Parameter weight = prototype;
  Parameter bias = prototype;
  const std::int64_t inputs = weight_.size(1);
  for (const ModuleRows& part : modules_) {
    weight.blocks.push_back({part.module + ".weight", part.height, inputs, part.rows, {0, inputs}});
    bias.blocks.push_back({part.module + ".bias", 1, part.height, {0, 1}, part.rows});
  }
  weight.name += ".weight";
  weight.value = &weight_;
  all.push_back(std::move(weight));
  if (!bias_.defined()) return;
  bias.name += ".bias";
  bias.input.reset();
  bias.value = &bias_;
  all.push_back(std::move(bias));
}

RowParallelLinear::RowParallelLinear(const WeightReader& weights, const std::string& module,
                                     std::int64_t outputs, std::int64_t width, dist::Range inputs,
                                     bool biased, const TensorCollectives& collectives)
    : weight_(weights.matrix({module + ".weight", outputs, width, {0, outputs}, inputs})),
      module_(module),
      width_(width),
      inputs_(inputs),
      collectives_(&collectives) {
  if (biased) bias_ = weights.vector(module + ".bias", outputs, {0, outputs});
}

bool RowParallelLinear::sums_wide(const torch::Tensor& states) const {
  return states.is_cpu() && states.scalar_type() == torch::kBFloat16 && collectives_->size() > 1;
}

torch::Tensor RowParallelLinear::sum_over_ranks(const torch::Tensor& x_local) const {
  if (sums_wide(x_local) && !torch::GradMode::is_enabled()) {
    return collectives_->all_reduce(wide_product(x_local, weight_)).to(torch::kBFloat16);
  }
  return reduce_from_ranks(apply_weight(x_local, weight_), *collectives_);
}

void RowParallelLinear::pack() {
  if (!sums_wide(weight_)) weight_ = pack_weight(weight_);
}

torch::Tensor RowParallelLinear::forward(const torch::Tensor& x_local) const {
  const torch::Tensor y = sum_over_ranks(x_local);
  return bias_.defined() ? y + bias_ : y;
}

void RowParallelLinear::add_parameters(const Parameter& prototype, std::vector<Parameter>& all) {
  const std::int64_t outputs = weight_.size(0);
  Parameter weight = prototype;
  weight.name += ".weight";
  weight.value = &weight_;
  weight.blocks = {{module_ + ".weight", outputs, width_, {0, outputs}, inputs_}};
  all.push_back(std::move(weight));
  if (!bias_.defined()) return;
  Parameter bias = prototype;
  bias.name += ".bias";
  bias.input.reset();
  bias.value = &bias_;
  bias.blocks = {{module_ + ".bias", 1, outputs, {0, 1}, {0, outputs}}};
  all.push_back(std::move(bias));
}

}  // namespace mrp::shard
