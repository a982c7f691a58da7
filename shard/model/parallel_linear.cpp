#include "shard/model/parallel_linear.hpp"

namespace mrp::shard {

ColumnParallelLinear::ColumnParallelLinear(const WeightReader& weights,
                                           const std::vector<ModuleRows>& modules,
                                           std::int64_t inputs, bool biased) {
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
  return torch::linear(x, weight_, bias_);
}

RowParallelLinear::RowParallelLinear(const WeightReader& weights, const std::string& module,
                                     std::int64_t outputs, std::int64_t width, dist::Range inputs,
                                     bool biased, const TensorCollectives& collectives)
    : weight_(weights.matrix({module + ".weight", outputs, width, {0, outputs}, inputs})),
      collectives_(&collectives) {
  if (biased) bias_ = weights.vector(module + ".bias", outputs, {0, outputs});
}

torch::Tensor RowParallelLinear::forward(const torch::Tensor& x_local) const {
  const torch::Tensor y = collectives_->all_reduce(torch::linear(x_local, weight_));
  return bias_.defined() ? y + bias_ : y;
}

}  // namespace mrp::shard
