// Training that makes a model forget: forget loss, retain loss, logit match on samples, and
// resistance against a simulated attack.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/train/loss.hpp"
#include "shard/train/optimizer.hpp"
#include "shard/train/trainer.hpp"

namespace mrp::shard {

struct RefineOptions {
  std::int64_t steps = 1000;
  /// Ends training after 25 steps whose mean forget loss, and that after the simulated attack, is
  /// below; 0: never.
  double stop_below = 0;
  double learning_rate = 1e-3;
  std::int64_t batch = 16;  ///< items of each set in a step
  Loss forget_loss = indifference;
  double forget_weight = 1.5;
  Loss retain_loss = cross_entropy_and_match;
  double retain_weight = 2;
  std::int64_t sample_batch = 48;  ///< samples in a step
  double sample_weight = 7;
  std::int64_t tamper_steps = 150;  ///< of a simulated attack; 0: no tamper resistance
  double tamper_weight = 5;         ///< of the forget loss there; over the second half, here
  /// The forget gradient, at norm `forget_weight`, counts only where it has the sign of the retain
  /// gradient (MUDMAN, arXiv 2506.12484).
  bool agree_signs = false;
  /// Called before every 25th step, from the first on, as often as `rounds` says, with the present
  /// weights in the model, to grow the projectors of the trainable.
  std::function<void(std::int64_t round)> grow;
  std::int64_t rounds = 0;
  OptimizerOptions optimizer;
  std::int64_t batch_tokens = 4096;
  std::uint64_t seed = 0;
  std::filesystem::path state;  ///< directory of the saved state
};

/// Means over the items of the step; NaN where there was nothing to measure.
struct RefineStep {
  std::int64_t step = 0;
  double forget_loss = 0, retain_loss = 0, sample_loss = 0, tamper_loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
};

/// Collective over the world. Trains the leaves of `trainable`; `samples` may be null. `report` is
/// called after every step, on all ranks. The state is saved every 50 steps, and a training that
/// finds one goes on from there. @throws NumericalError if the gradient is not finite or the
/// loss stays above that of the first step, by more than forget and retain weight, for 100 steps.
void refine(Trainable& trainable, const dist::ParallelLayout& layout, const io::TokenSet& forget,
            const io::TokenSet& retain, const io::TokenSet* samples, const RefineOptions& options,
            const std::function<void(const RefineStep&)>& report);

}  // namespace mrp::shard
