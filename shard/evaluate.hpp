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
  /// 1 if the right letter has the highest logit among the valid ones.
  std::optional<double> letter_correct;
  /// Of the right letter: softmax over the valid ones.
  std::optional<double> letter_probability;
  /// 1 if the right option's text (list form) has the highest mean token log-probability.
  std::optional<double> text_correct;
  /// The same in the open form.
  std::optional<double> open_correct;
  /// exp(mean token log-probability) of the answer in other words; the mean if there are several.
  std::optional<double> paraphrase_probability;
};

/// Means over the items that have the metric. nll is per token of the answer: mean_i(nll_i /
/// tokens_i).
struct SetMetrics {
  std::int64_t items = 0;
  double nll = 0;
  double answer_probability = 0;  ///< mean_i exp(−nll_i / tokens_i)
  double exact_memorization = 0;
  std::optional<double> letter_accuracy, letter_probability, text_accuracy, open_accuracy,
      paraphrase_probability;
  std::vector<ItemMetrics> per_item;  ///< in the order of the token file
};

/// Collective over layout.world(); data ranks share the sequences; the result is complete on every
/// rank. @throws InputError for a sequence without supervised tokens, too long for the model or
/// with tokens outside its vocabulary; NumericalError naming the item if a log-probability is NaN
/// or infinite.
SetMetrics evaluate(const CausalLM& model, const dist::ParallelLayout& layout,
                    const io::TokenSet& set, std::int64_t batch_tokens);

}  // namespace mrp::shard
