// Root-mean-square normalisation.
#pragma once

#include <torch/types.h>

#include <string>

#include "shard/model/parameter.hpp"

namespace mrp::shard {

/// x / sqrt(mean(x²) + eps) · weight. Computed in fp32, rounded to the type of x before the weight
/// is applied.
class RmsNorm {
 public:
  RmsNorm(torch::Tensor weight, double eps);
  torch::Tensor forward(const torch::Tensor& x) const;
  /// `name` without ".weight"; `tensor` is that of the checkpoint.
  Parameter parameter(const std::string& name, const std::string& tensor);

 private:
  torch::Tensor weight_;
  double eps_;
};

}  // namespace mrp::shard
