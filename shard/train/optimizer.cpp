#include "shard/train/optimizer.hpp"

#include <ATen/ops/_fused_adamw.h>
#include <fmt/format.h>
#include <torch/utils.h>

#include <cmath>
#include <span>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

void gather_shares(const dist::Communicator& ranks, torch::Tensor& values, dist::Range share) {
  if (ranks.size() == 1) return;
  const torch::Tensor own = values.narrow(0, share.begin, share.size()).cpu().contiguous();
  auto all = ranks.all_gather_v(
      std::span<const float>(own.data_ptr<float>(), static_cast<std::size_t>(own.numel())));
  values.copy_(torch::from_blob(all.data(), {values.numel()}, torch::kFloat32));
}

}  // namespace

Moments zero_moments(const torch::Tensor& value) {
  const auto fp32 = value.options().dtype(torch::kFloat32).requires_grad(false);
  return {torch::zeros(value.sizes(), fp32), torch::zeros(value.sizes(), fp32),
          torch::zeros({}, fp32)};
}

void adamw(torch::Tensor value, const torch::Tensor& gradient, Moments& moments,
           double learning_rate, const OptimizerOptions& options) {
  moments.steps.add_(1);
  at::_fused_adamw_({value}, {gradient}, {moments.first}, {moments.second}, {}, {moments.steps},
                    learning_rate, options.beta1, options.beta2, /*weight_decay=*/0.0,
                    options.epsilon, /*amsgrad=*/false, /*maximize=*/false);
}

void sum_over(const dist::Communicator& ranks, torch::Tensor values) {
  if (ranks.size() == 1) return;
  const torch::Tensor host = values.to(torch::kCPU, torch::kFloat32).contiguous();
  ranks.all_reduce(std::span(host.data_ptr<float>(), static_cast<std::size_t>(host.numel())));
  values.copy_(host);
}

Optimizer::Optimizer(Trainable& trainable, const dist::ParallelLayout& layout,
                     const OptimizerOptions& options)
    : trainable_(&trainable), layout_(&layout), options_(options) {
  const torch::NoGradGuard no_grad;
  const auto on = torch::TensorOptions(torch::kFloat32).device(trainable.model().options().device);
  values_ = torch::empty({trainable.count()}, on);
  gradients_ = torch::zeros({trainable.count()}, on);
  std::int64_t begin = 0;
  for (Leaf& leaf : trainable.leaves()) {
    const std::int64_t count = leaf.value.numel();
    const torch::Tensor place = values_.narrow(0, begin, count).view(leaf.value.sizes());
    place.copy_(leaf.value);
    const torch::Tensor gradient = gradients_.narrow(0, begin, count).view(leaf.value.sizes());
    leaf.value = place.detach().requires_grad_();
    leaf.value.mutable_grad() = gradient;
    begin += count;
  }
  share_ = dist::slice(trainable.count(), layout.data().size(), layout.data().rank());
  moments_ = zero_moments(values_.narrow(0, share_.begin, share_.size()));
}

void Optimizer::zero_gradients() {
  gradients_.zero_();
}

double Optimizer::gradient_norm() const {
  const auto squares = [](const torch::Tensor& values) {
    return values.square().sum(torch::kFloat64).item<double>();
  };
  double split = 0, replicated = 0;
  for (const Leaf& leaf : trainable_->leaves()) {
    const torch::Tensor gradient = leaf.value.grad();
    (leaf.replicated ? replicated : split) += squares(gradient);
    if (leaf.sharers == 1) continue;
    const torch::Tensor shared =
        gradient.narrow(0, leaf.shared_rows.begin, leaf.shared_rows.size());
    split -= squares(shared) * (1.0 - 1.0 / leaf.sharers);
  }
  return std::sqrt(layout_->tensor().all_reduce(split) + replicated);
}

void Optimizer::update(double learning_rate) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor value = values_.narrow(0, share_.begin, share_.size());
  const torch::Tensor gradient = gradients_.narrow(0, share_.begin, share_.size());
  if (options_.kind == OptimizerKind::sgd) {
    value.add_(gradient, -learning_rate);
  } else {
    adamw(value, gradient, moments_, learning_rate, options_);
  }
  gather_shares(layout_->data(), values_, share_);
}

void Optimizer::reduce() {
  trainable_->finish_gradients();
  sum_over(layout_->data(), gradients_);
}

double Optimizer::step(double learning_rate) {
  const double norm = gradient_norm();
  if (!std::isfinite(norm)) {
    throw dist::NumericalError(fmt::format(
        "the gradient norm is {}; lower refine.learning_rate, or set compute: fp32", norm));
  }
  if (options_.clip > 0 && norm > options_.clip) gradients_.mul_(options_.clip / norm);
  update(learning_rate);
  return norm;
}

}  // namespace mrp::shard
