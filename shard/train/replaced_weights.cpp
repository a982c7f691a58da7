#include "shard/train/replaced_weights.hpp"

#include <algorithm>

namespace mrp::shard {

bool reads_one_of(const Parameter& parameter, const std::vector<SiteModule>& modules) {
  if (!parameter.input) return false;
  return modules.empty() || std::ranges::count(modules, parameter.input->module) > 0;
}

ReplacedWeights::ReplacedWeights(
    CausalLM& model, const std::vector<SiteModule>& modules,
    const std::function<torch::Tensor(const torch::Tensor&)>& replace) {
  for (const Parameter& parameter : model.parameters()) {
    if (!reads_one_of(parameter, modules)) continue;
    parameters_.push_back(parameter);
    originals_.push_back(*parameter.value);
    *parameter.value = replace(*parameter.value);
  }
}

ReplacedWeights::~ReplacedWeights() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) *parameters_[i].value = originals_[i];
}

}  // namespace mrp::shard
