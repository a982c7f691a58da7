#include "shard/train/refine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kPatience = 100;

/// The attack that training is made to resist: 1 to 4 steps on half of the forget set, at a quarter
/// to the whole of the learning rate; what counts is how much of the other half it brings back.
class Tamper {
 public:
  Tamper(Trainer& trainer, const Examples& forget, const RefineOptions& options)
      : trainer_(&trainer), forget_(&forget), options_(&options) {}

  /// Collective over the world. Adds the gradient of the forget loss at the attacked weights to the
  /// leaves (first order: as if it were taken at the weights themselves).
  double accumulate(std::int64_t step) {
    const LossContext context{nullptr, forget_, options_->seed, step};
    std::mt19937_64 random = context.random(0, 1);
    auto items = all_items(forget_->count());
    std::shuffle(items.begin(), items.end(), random);
    const std::size_t half = items.size() / 2;
    ItemStream known({items.begin(), items.begin() + static_cast<std::ptrdiff_t>(half)}, random());
    ItemStream hidden({items.begin() + static_cast<std::ptrdiff_t>(half), items.end()}, random());
    const std::int64_t batch = std::max<std::int64_t>(options_->batch / 2, 1);
    const auto steps = std::uniform_int_distribution<std::int64_t>(1, 4)(random);
    const double rate = options_->learning_rate *
                        std::pow(4.0, std::uniform_real_distribution<>(-1.0, 0.0)(random));
    std::vector<std::vector<torch::Tensor>> moments;
    for (std::int64_t n = 0; n < steps; ++n) {
      trainer_->attack(*forget_, known.next(batch), rate, step, moments);
    }
    return trainer_->accumulate(options_->forget_loss, *forget_, hidden.next(batch),
                                options_->tamper_weight, step);
  }

 private:
  Trainer* trainer_;
  const Examples* forget_;
  const RefineOptions* options_;
};

/// Notices a training that does not get below where it began.
class DivergenceGuard {
 public:
  void check(double loss) {
    first_ = std::isnan(first_) ? loss : first_;
    above_ = loss > first_ + 1e-6 ? above_ + 1 : 0;
    if (above_ < kPatience) return;
    throw dist::NumericalError(fmt::format(
        "the loss has been above its start ({:.3g}) for {} steps; lower refine.learning_rate",
        first_, kPatience));
  }

 private:
  double first_ = kNothing;
  std::int64_t above_ = 0;
};

}  // namespace

void refine(Trainable& trainable, const dist::ParallelLayout& layout, const io::TokenSet& forget,
            const io::TokenSet& retain, const io::TokenSet* samples, const RefineOptions& options,
            const std::function<void(const RefineStep&)>& report) {
  const Examples forget_forms(forget), retain_forms(retain);
  std::optional<Examples> sample_forms;
  if (samples != nullptr) sample_forms.emplace(*samples);
  ItemStream forget_items(all_items(forget_forms.count()), options.seed);
  ItemStream retain_items(all_items(retain_forms.count()), options.seed + 1);
  ItemStream sample_items(all_items(sample_forms ? sample_forms->count() : 1), options.seed + 2);
  Optimizer optimizer(trainable, layout, options.optimizer);
  Trainer trainer(trainable, layout, options.batch_tokens, options.seed);
  Tamper tamper(trainer, forget_forms, options);
  DivergenceGuard guard;
  const double keep = options.retain_weight;
  for (std::int64_t step = 0; step < options.steps; ++step) {
    RefineStep result{step, kNothing, kNothing, kNothing, kNothing, 0, 0};
    optimizer.zero_gradients();
    trainable.apply();
    if (options.tamper_every > 0 && step % options.tamper_every == options.tamper_every - 1) {
      result.tamper_loss = tamper.accumulate(step);
      trainable.apply();
    }
    result.forget_loss = trainer.accumulate(options.forget_loss, forget_forms,
                                            forget_items.next(options.batch),
                                            options.forget_weight, step);
    result.retain_loss = trainer.accumulate(options.retain_loss, retain_forms,
                                            retain_items.next(options.batch), keep, step);
    if (sample_forms) {
      result.sample_loss = trainer.accumulate(logit_match, *sample_forms,
                                              sample_items.next(options.batch), keep, step);
    }
    guard.check(result.forget_loss * options.forget_weight + keep * result.retain_loss);
    result.learning_rate = scheduled(options.learning_rate, step, options.steps);
    result.gradient_norm = optimizer.step(result.learning_rate);
    report(result);
  }
  trainable.apply();
}

}  // namespace mrp::shard
