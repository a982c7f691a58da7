#include "shard/train/leaning.hpp"

#include <torch/utils.h>

#include <cmath>
#include <span>

namespace mrp::shard {

torch::Tensor Leaning::penalty(AnswerForm form, const torch::Tensor& margins) {
  constexpr double kFlat = 0.02;
  const auto index = static_cast<std::size_t>(form);
  noted_[index] += margins.detach().sum().item<double>();
  noted_[kForms + index] += static_cast<double>(margins.numel());
  const double mean = means_.const_data_ptr<float>()[index];
  const torch::Tensor sum = mean / std::hypot(mean, kFlat) * margins.sum();
  return sum - sum.detach();
}

void Leaning::update(const dist::Communicator& data) {
  constexpr double kRate = 0.25;
  data.all_reduce(std::span<double>(noted_));
  auto* mean = means_.data_ptr<float>();
  for (std::size_t form = 0; form < kForms; ++form) {
    if (noted_[kForms + form] == 0) continue;
    mean[form] += static_cast<float>(kRate * (noted_[form] / noted_[kForms + form] - mean[form]));
  }
  noted_ = {};
}

}  // namespace mrp::shard
