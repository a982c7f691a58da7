// Teacher-forced metrics of a model on a token set. Definitions: README, "Metrics".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

/// Of one item; absent where the item has no such form.
struct ItemMetrics {
  std::string id;
  double nll = 0;                 ///< −Σ log p of the answer tokens, nats
  std::int64_t tokens = 0;        ///< supervised tokens
  double exact_memorization = 0;  ///< share of answer tokens that are the argmax
  std::optional<double> letter_correct;     ///< 1 if the right letter has the highest logit among the valid ones
  std::optional<double> letter_probability; ///< softmax over the valid letters
  std::optional<double> text_correct;       ///< 1 if the right option's text (list form) has the highest mean token log-probability
  std::optional<double> open_correct;       ///< the same in the open form
};

/// Means over items. nll is per token of the answer, averaged over items: mean_i(nll_i / tokens_i).
struct SetMetrics {
  std::int64_t items = 0;
  double nll = 0;
  double answer_probability = 0;  ///< mean_i exp(−nll_i / tokens_i)
  double exact_memorization = 0;
  std::optional<double> letter_accuracy, letter_probability, text_accuracy, open_accuracy;
  std::vector<ItemMetrics> per_item;  ///< in the order of the token file
};

/// Collective over layout.world(); data ranks share the sequences; the result is complete on every rank.
SetMetrics evaluate(const CausalLM& model, const dist::ParallelLayout& layout,
                    const io::TokenSet& set, std::int64_t batch_tokens);

}  // namespace mrp::shard
