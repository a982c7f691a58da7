// What training minimises: one function for each loss, summed over items.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <random>
#include <span>

#include "shard/train/examples.hpp"
#include "shard/train/leaning.hpp"
#include "shard/train/pass.hpp"
#include "shard/train/trainable.hpp"

namespace mrp::shard {

/// What a loss is computed from. Randomness depends on seed, step and item only, so that it is the
/// same on any number of ranks.
struct LossContext {
  Trainable* trainable = nullptr;
  const Examples* examples = nullptr;
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  /// At weights that a simulated attack has changed, the items that it did not learn; else empty.
  std::span<const std::int64_t> hidden = {};
  Leaning* leaning = nullptr;  ///< with these weights; what indifference alone needs

  bool attacked() const { return !hidden.empty(); }
  const CausalLM& model() const { return trainable->model(); }
  std::mt19937_64 random(std::int64_t item, std::uint32_t purpose) const;
  /// A pass of the base model over the same sequences, without gradients.
  Pass base_pass(std::span<const Example> examples) const;
};

/// Σ over `items` of the loss of one, a scalar. Collective over the tensor ranks.
using Loss = std::function<torch::Tensor(const LossContext&, std::span<const std::int64_t> items)>;

/// What a model that never learned the item would say: all alternatives alike. They are asked for
/// in the open, after the question alone, or, of an item with letters, in one of three forms: in
/// the open, in the list after their own letters, and in the list after letters rotated by a random
/// offset. The sum of
///  L1  twice the spread of the logits of the valid letters,
///  L2  cross entropy of the text of an alternative drawn uniformly, after its own letter; in the
///      open, of an answer of the retain set (what the model knows instead), and only where there
///      is none and no letter either of an alternative,
///  L3  spread of the mean token log-probabilities of all alternatives,
///  L4  in the open, mean over the tokens of an alternative of x + x²/8 (of x at attacked weights),
///      x = max(0, log(p/(1 − p)) − log(q/(1 − q))), q the share of the token in the answers of the
///      retain set; of the alternatives, the largest. After its first words a text that was learned
///      by heart goes on whatever was asked, and L2 and L3 hardly see that. Odds, because log p has
///      no gradient where p is nearly one; the square, because long texts go too slowly without it.
///      An attack brings back so much that the square would outweigh what is to be kept,
///  L5  the penalty of `leaning` on the margins of the right letter, and of the right text.
/// At attacked weights L1 and L3 have no gradient: an attack moves all alternatives about, and what
/// matters is how much it raises the right ones. Answers that it has learned are no alternatives
/// there: they are recited after any question.
torch::Tensor indifference(const LossContext&, std::span<const std::int64_t> items);

/// L2 alone, the right answer not among the alternatives.
torch::Tensor counterfactual(const LossContext&, std::span<const std::int64_t> items);

/// −log(1 − p) per token (arXiv 1908.04319).
torch::Tensor unlikelihood(const LossContext&, std::span<const std::int64_t> items);

/// log p per token: gradient ascent on cross entropy.
torch::Tensor gradient_ascent(const LossContext&, std::span<const std::int64_t> items);

/// −(2/β) log σ(−β log(p / p_base)) of the whole answer, β = 0.1 (arXiv 2404.05868).
torch::Tensor npo(const LossContext&, std::span<const std::int64_t> items);

/// −(2/β) log σ(−(β/n) log p), β = 2.5, margin 0 (arXiv 2410.07163).
torch::Tensor simnpo(const LossContext&, std::span<const std::int64_t> items);

/// ‖h − c u‖² / width after the middle layer, u one random direction, c six times the mean norm of
/// the base model's states of the item there (arXiv 2403.03218).
torch::Tensor rmu(const LossContext&, std::span<const std::int64_t> items);

/// KL(uniform ‖ model) over the letters, and over the vocabulary per answer token.
torch::Tensor uniform(const LossContext&, std::span<const std::int64_t> items);

/// −log p per token: keeping, and relearning.
torch::Tensor cross_entropy(const LossContext&, std::span<const std::int64_t> items);

/// KL(base ‖ model) per token.
torch::Tensor kl_to_base(const LossContext&, std::span<const std::int64_t> items);

/// Spread of the change of the logits, over the valid letters and, at each answer token, over the
/// vocabulary, and 10 √(mean KL + 1e-4) − 0.1 with KL(base ‖ model) there: zero if the model
/// differs from the base by constants only.
torch::Tensor logit_match(const LossContext&, std::span<const std::int64_t> items);

/// cross_entropy + logit_match in one pass.
torch::Tensor cross_entropy_and_match(const LossContext&, std::span<const std::int64_t> items);

}  // namespace mrp::shard
