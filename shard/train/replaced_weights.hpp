// Linear weights that are others for a while.
#pragma once

#include <torch/types.h>

#include <functional>
#include <vector>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

/// Whether it is a linear weight that reads the input of one of `modules`; empty: of any.
bool reads_one_of(const Parameter& parameter, const std::vector<SiteModule>& modules);

class ReplacedWeights {
 public:
  /// Not collective. The linear weights of `model` that read `modules` become replace(weight) until
  /// this is destroyed. The model must outlive it.
  ReplacedWeights(CausalLM& model, const std::vector<SiteModule>& modules,
                  const std::function<torch::Tensor(const torch::Tensor&)>& replace);
  ~ReplacedWeights();
  ReplacedWeights(const ReplacedWeights&) = delete;
  ReplacedWeights& operator=(const ReplacedWeights&) = delete;

  /// Those that were replaced.
  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  std::vector<Parameter> parameters_;
  std::vector<torch::Tensor> originals_;
};

}  // namespace mrp::shard
