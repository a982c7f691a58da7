#include "shard/model/norm.hpp"

#include <utility>

#include "shard/model/fused.hpp"

namespace mrp::shard {

RmsNorm::RmsNorm(torch::Tensor weight, double eps) : weight_(std::move(weight)), eps_(eps) {}

torch::Tensor RmsNorm::forward(const torch::Tensor& x) const {
  return rms_norm(x, weight_, eps_);
}

Parameter RmsNorm::parameter(const std::string& name, const std::string& tensor) {
  const std::int64_t width = weight_.size(0);
  Parameter weight;
  weight.name = name + ".weight";
  weight.value = &weight_;
  weight.blocks = {{tensor, 1, width, {0, 1}, {0, width}}};
  return weight;
}

}  // namespace mrp::shard
