#include "shard/train/trainer.hpp"

#include <algorithm>
#include <cmath>

#include <torch/autograd.h>
#include <torch/utils.h>

#include "dist/error.hpp"

namespace mrp::shard {

ItemStream::ItemStream(std::vector<std::int64_t> items, std::uint64_t seed)
    : items_(std::move(items)), at_(items_.size()), random_(seed) {
  MRP_EXPECT(!items_.empty());
}

std::vector<std::int64_t> ItemStream::next(std::int64_t count) {
  std::vector<std::int64_t> drawn;
  while (std::ssize(drawn) < count) {
    if (at_ == items_.size()) {
      std::shuffle(items_.begin(), items_.end(), random_);
      at_ = 0;
    }
    drawn.push_back(items_[at_++]);
  }
  return drawn;
}

double warm_up(std::int64_t step) {
  constexpr double kSteps = 10;
  return std::min(1.0, static_cast<double>(step + 1) / kSteps);
}

double fading(std::int64_t step, std::int64_t steps) {
  constexpr double kDecay = 0.5;
  const auto at = static_cast<double>(step), all = static_cast<double>(steps);
  return std::min(1.0, (all - at) / (kDecay * all));
}

double scheduled(double peak, std::int64_t step, std::int64_t steps) {
  constexpr double kEnd = 0.05;
  const double left = 1 - static_cast<double>(step) / static_cast<double>(steps);
  return peak * warm_up(step) * (kEnd + (1 - kEnd) * left);
}

double Trainer::backward(const Loss& loss, const LossContext& context,
                         std::span<const std::int64_t> items, double weight, bool collect) {
  const Examples& examples = *context.examples;
  const dist::Communicator& data = layout_->data();
  std::vector<std::int64_t> mine;
  for (std::size_t i = static_cast<std::size_t>(data.rank()); i < items.size();
       i += static_cast<std::size_t>(data.size())) {
    mine.push_back(items[i]);
  }
  // Neighbours of one length need little padding.
  std::ranges::stable_sort(mine, {},
                           [&](std::int64_t i) { return examples.alternative_tokens(i); });
  double sum = 0;
  for (std::size_t begin = 0; begin < mine.size();) {
    std::size_t end = begin;
    for (std::int64_t tokens = 0; end < mine.size(); ++end) {
      tokens += examples.alternative_tokens(mine[end]);
      if (end > begin && tokens > batch_tokens_) break;
    }
    const torch::Tensor part = loss(context, std::span(mine).subspan(begin, end - begin));
    (part * (weight / static_cast<double>(items.size()))).backward();
    if (collect) trainable_->collect();
    sum += part.item<double>();
    begin = end;
  }
  return data.all_reduce(sum) / static_cast<double>(items.size());
}

double Trainer::accumulate(const Loss& loss, const Examples& examples,
                           std::span<const std::int64_t> items, double weight, std::int64_t step,
                           std::span<const std::int64_t> hidden) {
  Leaning& leaning = hidden.empty() ? leaning_ : attacked_leaning_;
  const double mean = backward(loss, {trainable_, &examples, seed_, step, hidden, &leaning}, items,
                               weight, /*collect=*/true);
  leaning.update(layout_->data());
  return mean;
}

std::vector<torch::Tensor> Attack::state() const {
  std::vector<torch::Tensor> all = changes;
  for (const Moments& known : moments) {
    all.insert(all.end(), {known.first, known.second, known.steps});
  }
  return all;
}

Attack Trainer::new_attack() const {
  Attack attack;
  for (const torch::Tensor& weight : trainable_->applied()) {
    attack.moments.push_back(zero_moments(weight));
    attack.changes.push_back(torch::zeros_like(attack.moments.back().first));
  }
  return attack;
}

void Trainer::attack(const Examples& examples, std::span<const std::int64_t> items,
                     double learning_rate, std::int64_t step, Attack& attack) {
  std::vector<torch::Tensor> weights = trainable_->applied(), present;
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      present.push_back(weights[i].clone());
      weights[i].copy_(present[i] + attack.changes[i]);
    }
  }
  backward(cross_entropy, {trainable_, &examples, seed_, step}, items, 1.0, /*collect=*/false);
  trainable_->share_gradients();
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    torch::Tensor& weight = weights[i];
    torch::Tensor& change = attack.changes[i];
    torch::Tensor gradient =
        weight.grad().defined() ? weight.grad().to(torch::kFloat32) : torch::zeros_like(change);
    sum_over(layout_->data(), gradient);
    adamw(change, gradient, attack.moments[i], learning_rate, {});
    weight.copy_(present[i] + change);
    weight.mutable_grad() = torch::Tensor();
  }
}

}  // namespace mrp::shard
