#include "shard/train/refine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "dist/error.hpp"
#include "dist/log.hpp"
#include "shard/batches.hpp"
#include "shard/train/saved_state.hpp"

namespace mrp::shard {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kPatience = 100;
constexpr std::int64_t kSaveEvery = 50;
constexpr std::int64_t kGrowEvery = 25;

/// The attack that training is made to resist: it learns half of the forget set, one step beside
/// each step of the training; what counts is how much of the other half it brings back. After
/// `tamper_steps` steps another begins, with other halves, at half the learning rate of the
/// training to all of it: a slow attack that goes on for long finds more than a fast one, and costs
/// less of what is kept. None, if that is zero or there is a single item, which has no other half.
class Tamper {
 public:
  Tamper(Trainer& trainer, const Examples& forget, const RefineOptions& options)
      : trainer_(&trainer), forget_(&forget), options_(&options) {
    if (attacks()) attack_ = trainer.new_attack();
  }

  bool attacks() const { return options_->tamper_steps > 0 && forget_->count() > 1; }
  const Attack& attack() const { return attack_; }

  /// Passes over the items of steps that were done before.
  void skip(std::int64_t steps) {
    const std::int64_t age = attacks() ? steps % options_->tamper_steps : 0;
    if (age == 0) return;
    draw(steps - age);
    known_->next(age * batch());
    hidden_->next(age * batch());
  }

  /// Collective over the world. Adds the gradient of the forget loss at the attacked weights to the
  /// leaves (first order: as if it were taken at the weights themselves).
  double accumulate(std::int64_t step, double weight) {
    const std::int64_t age = step % options_->tamper_steps;
    if (age == 0) {
      draw(step);
      for (torch::Tensor& state : attack_.state()) state.zero_();
    }
    trainer_->attack(*forget_, known_->next(batch()), rate_ * warm_up(age), step, attack_);
    return trainer_->accumulate(options_->forget_loss, *forget_, hidden_->next(batch()), weight,
                                step, hidden_items_);
  }

 private:
  std::int64_t batch() const { return std::max<std::int64_t>(options_->batch / 2, 1); }

  /// Halves and learning rate of the attack that begins with this step.
  void draw(std::int64_t step) {
    std::mt19937_64 random = LossContext{nullptr, forget_, options_->seed, step}.random(0, 1);
    auto items = all_items(forget_->count());
    std::shuffle(items.begin(), items.end(), random);
    const auto middle = items.begin() + std::ssize(items) / 2;
    known_.emplace(std::vector(items.begin(), middle), random());
    hidden_items_.assign(middle, items.end());
    hidden_.emplace(hidden_items_, random());
    rate_ = options_->learning_rate *
            std::pow(2.0, std::uniform_real_distribution<>(-1.0, 0.0)(random));
  }

  Trainer* trainer_;
  const Examples* forget_;
  const RefineOptions* options_;
  std::vector<std::int64_t> hidden_items_;
  std::optional<ItemStream> known_, hidden_;
  Attack attack_;
  double rate_ = 0;
};

/// Notices a training that stays above where it began. By less than `margin` it may: where an
/// earlier request, or the steps before a training went on, left nothing to forget, it begins at
/// its lowest, and steps differ.
class DivergenceGuard {
 public:
  explicit DivergenceGuard(double margin) : margin_(margin) {}

  void check(double loss) {
    first_ = std::isnan(first_) ? loss : first_;
    above_ = loss > first_ + margin_ ? above_ + 1 : 0;
    if (above_ < kPatience) return;
    throw dist::NumericalError(fmt::format(
        "the loss has been above its start ({:.3g}) by more than {:g} for {} steps; lower "
        "refine.learning_rate",
        first_, margin_, kPatience));
  }

 private:
  double margin_;
  double first_ = kNothing;
  std::int64_t above_ = 0;
};

/// Notices that the target is reached. Looks at blocks of steps that begin where states are saved,
/// so that a training that goes on ends where one in a piece does.
class Target {
 public:
  explicit Target(double below) : below_(below) {}

  bool reached(const RefineStep& step) {
    add(step.forget_loss, forget_);
    if (!std::isnan(step.tamper_loss)) add(step.tamper_loss, tamper_);
    if ((step.step + 1) % kBlock != 0) return false;
    const bool reached = forget_.mean() < below_ && tamper_.mean() < below_;
    forget_ = tamper_ = {};
    return reached;
  }

 private:
  static constexpr std::int64_t kBlock = 25;
  static_assert(kSaveEvery % kBlock == 0);
  struct Mean {
    double sum = 0;
    int count = 0;
    double mean() const { return count == 0 ? -kInfinity : sum / count; }
  };
  static void add(double value, Mean& mean) {
    mean.sum += value;
    ++mean.count;
  }

  double below_;
  Mean forget_, tamper_;
};

/// The sets of a job with their orders, and the gradients of one step. The forget loss counts at
/// the present weights and, with `tamper_weight`, at attacked ones. The gradient there makes the
/// right answers less likely before an attack than others, which tells what was forgotten: over the
/// last steps its weight moves to the loss at the present weights, which makes them alike.
class Refinement {
 public:
  Refinement(Trainable& trainable, const dist::ParallelLayout& layout, const io::TokenSet& forget,
             const io::TokenSet& retain, const io::TokenSet* samples, const RefineOptions& options)
      : trainable_(&trainable),
        options_(&options),
        retain_(retain),
        forget_(forget, &retain_),
        forget_items_(all_items(forget_.count()), options.seed),
        retain_items_(all_items(retain_.count()), options.seed + 1),
        optimizer_(trainable, layout, options.optimizer),
        trainer_(trainable, layout, options.batch_tokens, options.seed),
        tamper_(trainer_, forget_, options) {
    if (samples == nullptr) return;
    samples_.emplace(*samples);
    sample_items_.emplace(all_items(samples_->count()), options.seed + 2);
  }

  /// All that a step changes, to save and restore.
  std::vector<torch::Tensor> state() {
    std::vector<torch::Tensor> all{optimizer_.values()};
    for (const auto& part : {optimizer_.state(), trainer_.state(), tamper_.attack().state()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    for (const auto& [site, grown] : trainable_->grown()) {
      all.push_back(grown.a);
      all.push_back(grown.b);
    }
    return all;
  }

  /// Passes over the items of steps that were done before.
  void skip(std::int64_t steps) {
    for (std::int64_t step = 0; step < steps; ++step) {
      retain_items_.next(options_->batch);
      forget_items_.next(options_->batch);
      if (sample_items_) sample_items_->next(options_->sample_batch);
    }
    tamper_.skip(steps);
  }

  RefineStep step(std::int64_t number) {
    RefineStep result{number, kNothing, kNothing, kNothing, kNothing, 0, 0};
    optimizer_.zero_gradients();
    trainable_->apply();
    if (number % kGrowEvery == 0 && number / kGrowEvery < options_->rounds) {
      options_->grow(number / kGrowEvery);
      trainable_->apply();
    }
    keep(result);
    torch::Tensor kept;
    if (options_->agree_signs) {
      optimizer_.reduce();
      kept = optimizer_.gradients().clone();
      optimizer_.zero_gradients();
    }
    forget(result);
    optimizer_.reduce();
    if (options_->agree_signs) agree(kept);
    result.learning_rate = scheduled(options_->learning_rate, number, options_->steps);
    result.gradient_norm = optimizer_.step(result.learning_rate);
    return result;
  }

 private:
  void keep(RefineStep& result) {
    result.retain_loss =
        trainer_.accumulate(options_->retain_loss, retain_, retain_items_.next(options_->batch),
                            options_->retain_weight, result.step);
    if (!samples_) return;
    result.sample_loss =
        trainer_.accumulate(logit_match, *samples_, sample_items_->next(options_->sample_batch),
                            options_->sample_weight, result.step);
  }

  void forget(RefineStep& result) {
    const double tamper = tamper_.attacks() ? options_->tamper_weight : 0;
    const double there = tamper * fading(result.step, options_->steps);
    result.forget_loss =
        trainer_.accumulate(options_->forget_loss, forget_, forget_items_.next(options_->batch),
                            options_->forget_weight + tamper - there, result.step);
    if (tamper_.attacks()) result.tamper_loss = tamper_.accumulate(result.step, there);
  }

  void agree(const torch::Tensor& kept) {
    torch::Tensor& gradient = optimizer_.gradients();
    const double norm = optimizer_.gradient_norm();
    gradient.mul_(options_->forget_weight / std::max(norm, 1e-12));
    gradient.mul_(gradient * kept > 0).add_(kept);
  }

  Trainable* trainable_;
  const RefineOptions* options_;
  Examples retain_, forget_;
  std::optional<Examples> samples_;
  ItemStream forget_items_, retain_items_;
  std::optional<ItemStream> sample_items_;
  Optimizer optimizer_;
  Trainer trainer_;
  Tamper tamper_;
};

}  // namespace

void refine(Trainable& trainable, const dist::ParallelLayout& layout, const io::TokenSet& forget,
            const io::TokenSet& retain, const io::TokenSet* samples, const RefineOptions& options,
            const std::function<void(const RefineStep&)>& report) {
  Refinement refinement(trainable, layout, forget, retain, samples, options);
  SavedState saved(options.state, layout.world());
  const std::int64_t first = saved.load(refinement.state());
  if (first > 0) dist::log::info(fmt::format("refine: goes on after step {}", first));
  refinement.skip(first);
  DivergenceGuard guard(options.forget_weight + options.retain_weight);
  Target target(options.stop_below);
  for (std::int64_t step = first; step < options.steps; ++step) {
    const RefineStep result = refinement.step(step);
    guard.check(result.forget_loss * options.forget_weight +
                options.retain_weight * result.retain_loss);
    report(result);
    if (options.stop_below > 0 && target.reached(result)) {
      dist::log::info(fmt::format("refine: the target is reached after {} steps", step + 1));
      break;
    }
    if ((step + 1) % kSaveEvery == 0) saved.save(refinement.state(), step + 1);
  }
  trainable.apply();
}

}  // namespace mrp::shard
