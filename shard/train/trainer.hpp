// The steps that refinement, baselines and relearning attacks are made of.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "shard/train/loss.hpp"
#include "shard/train/optimizer.hpp"

namespace mrp::shard {

/// Items of a set in seeded random order, each once before any comes again.
class ItemStream {
 public:
  ItemStream(std::vector<std::int64_t> items, std::uint64_t seed);
  std::vector<std::int64_t> next(std::int64_t count);

 private:
  std::vector<std::int64_t> items_;
  std::size_t at_ = 0;
  std::mt19937_64 random_;
};

/// Share of the learning rate in a step: linear over 10 steps, then 1.
double warm_up(std::int64_t step);

/// 1, then linear to 0 over the second half of the steps.
double fading(std::int64_t step, std::int64_t steps);

/// Linear from `peak` to 5 % of it, after the warm-up.
double scheduled(double peak, std::int64_t step, std::int64_t steps);

/// A simulated attack: what it has changed of each weight, fp32, and what Adam knows.
struct Attack {
  std::vector<torch::Tensor> changes;
  std::vector<Moments> moments;

  /// All of the above, to clear, save and restore.
  std::vector<torch::Tensor> state() const;
};

/// Computes gradients of losses over the items of a step. Data ranks share the items; a rank's
/// share runs in parts of at most `batch_tokens` tokens.
class Trainer {
 public:
  Trainer(Trainable& trainable, const dist::ParallelLayout& layout, std::int64_t batch_tokens,
          std::uint64_t seed)
      : trainable_(&trainable), layout_(&layout), batch_tokens_(batch_tokens), seed_(seed) {}

  /// Collective over the world. Adds the gradient of weight × mean loss to the leaves; after
  /// `attack` has changed the weights, `hidden` are the items that it did not learn. Returns the
  /// mean; the gradients of the data ranks are summed by Optimizer::step.
  double accumulate(const Loss& loss, const Examples& examples, std::span<const std::int64_t> items,
                    double weight, std::int64_t step, std::span<const std::int64_t> hidden = {});

  /// What `accumulate` knows of earlier steps, to save and restore.
  std::vector<torch::Tensor> state() { return {leaning_.means(), attacked_leaning_.means()}; }

  /// One that has changed nothing yet.
  Attack new_attack() const;
  /// Collective over the world. Adds the changes of the attack to the weights in the model (not the
  /// leaves), and one step more: of Adam, on the cross entropy of `items`.
  void attack(const Examples& examples, std::span<const std::int64_t> items, double learning_rate,
              std::int64_t step, Attack& attack);

 private:
  double backward(const Loss& loss, const LossContext& context, std::span<const std::int64_t> items,
                  double weight, bool collect);

  Trainable* trainable_;
  const dist::ParallelLayout* layout_;
  std::int64_t batch_tokens_;
  std::uint64_t seed_;
  Leaning leaning_, attacked_leaning_;
};

}  // namespace mrp::shard
