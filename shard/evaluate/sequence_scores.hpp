// Forward passes of evaluate: what the model says about the supervised tokens of each sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/log.hpp"
#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

// Doubles only: an all-reduce over data ranks, of which one has a sequence, completes them.

struct SequenceScore {
  double log_probability = 0;  ///< Σ log p of the supervised tokens, nats
  double tokens = 0;           ///< supervised tokens

  double mean() const { return log_probability / tokens; }
};

struct ItemScore {
  SequenceScore answer;
  double exact_memorization = 0;
  double extraction_strength = 0;
  double min_k = 0;
  double min_k_plus_plus = 0;
  double kl = 0;  ///< mean over the supervised tokens; 0 without a reference
  double letter_correct = 0;
  double letter_probability = 0;
};

struct ScoringRun {
  const CausalLM& model;
  const dist::ParallelLayout& layout;
  std::int64_t batch_tokens;
  dist::log::Progress& progress;
};

/// Collective over the world; complete on every rank. KL is taken against `reference` unless null.
std::vector<ItemScore> score_items(const ScoringRun& run, const CausalLM* reference,
                                   const io::TokenSet& set);

/// Collective over the world; complete on every rank.
std::vector<SequenceScore> score_options(const ScoringRun& run, const io::Sequences& options);

}  // namespace mrp::shard
