// Attacks on an unlearned model: what half of the forget set brings back of the other half.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/evaluate.hpp"
#include "shard/train/trainable.hpp"

namespace mrp::shard {

enum class Attacker {
  qv_lora,      ///< LoRA of rank 16 on the attention's projections, fine-tuned on one half
  all_weights,  ///< every tensor, fine-tuned on one half
  benign,       ///< every tensor, fine-tuned on the retain set
  int8,         ///< rounded to 8 bits, per row, without training
  int4          ///< rounded to 4 bits, in groups of 32 columns, without training
};
bool trains(Attacker attacker);

/// Items of the halves of a forget set: trained on, and scored.
struct Split {
  std::vector<std::int64_t> known, hidden;
};
/// A random half for `direction` 0, the other for 1. @throws InputError for fewer than 8 items.
Split split_items(const io::TokenSet& set, std::uint64_t seed, int direction);

/// The items with all that belongs to them, as a set of its own.
io::TokenSet subset(const io::TokenSet& set, const std::vector<std::int64_t>& items);

struct AttackOptions {
  Attacker attacker{};
  double learning_rate = 0;
  std::vector<std::int64_t> steps;  ///< ascending, at which the model is scored
  std::int64_t batch = 16;
  std::int64_t batch_tokens = 4096;
  std::uint64_t seed = 0;
  /// Constant projectors of the model, kept in the graph (see TrainableOptions).
  std::map<Site, Projector> projectors;
};

/// Collective over the world. Attacks a model and scores `hidden` at step 0 and at each of the
/// steps (without training: once). `material` is what the attacker trains on. The model is as
/// before afterwards.
std::vector<std::pair<std::int64_t, SetMetrics>> attack(CausalLM& model,
                                                        const dist::ParallelLayout& layout,
                                                        const io::TokenSet& material,
                                                        const io::TokenSet& hidden,
                                                        const AttackOptions& options);

/// Symmetric round-to-nearest quantisation of a matrix [m × n] to `bits`, one scale for each group
/// of `group` columns of a row (0: the whole row): max |w| maps to 2^(bits−1) − 1.
torch::Tensor quantised(const torch::Tensor& weight, int bits, std::int64_t group);

}  // namespace mrp::shard
