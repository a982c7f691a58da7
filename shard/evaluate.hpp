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

/// Of one item; absent where the item has no such form. P(a) = exp(mean token log-probability).
struct ItemMetrics {
  std::string id;
  double nll = 0;                  ///< −Σ log p of the answer tokens, nats
  std::int64_t tokens = 0;         ///< supervised tokens
  double exact_memorization = 0;   ///< share of answer tokens that are the argmax
  double extraction_strength = 0;  ///< share of the answer, from its end, that is all argmax
  double min_k = 0;                ///< −mean of the lowest 40 % of the token log-probabilities
  /// The same of (log p − μ)/σ, μ and σ of log p over the vocabulary.
  double min_k_plus_plus = 0;
  std::optional<double> zlib;  ///< NLL a token by bytes of the compressed text
  std::optional<double> kl;    ///< KL(reference ‖ model), mean over the answer tokens
  /// 1 if the right letter has the highest logit among the valid ones.
  std::optional<double> letter_correct;
  /// Of the right letter: softmax over the valid ones.
  std::optional<double> letter_probability;
  /// 1 if the right option's text (list form) has the highest mean token log-probability.
  std::optional<double> text_correct;
  /// 1 if letter and text are both right.
  std::optional<double> both_correct;
  /// As text_correct, in the open form.
  std::optional<double> open_correct;
  /// P(right) / Σ P(option), open form.
  std::optional<double> option_probability;
  /// P of the answer in other words; the mean if there are several.
  std::optional<double> paraphrase_probability;
  /// exp(mean_i log P(wrong_i)) / P(paraphrase), open form; the answer itself stands in for a
  /// missing paraphrase.
  std::optional<double> truth_ratio;
  /// mean_i P(wrong_i) / P(paraphrase).
  std::optional<double> truth_ratio_arithmetic;

  double nll_per_token() const { return nll / static_cast<double>(tokens); }
  double answer_probability() const;
};

/// Means over the items that have the metric.
struct SetMetrics {
  std::int64_t items = 0;
  double nll = 0;                 ///< mean_i(nll_i / tokens_i)
  double answer_probability = 0;  ///< mean_i exp(−nll_i / tokens_i)
  double exact_memorization = 0;
  std::optional<double> letter_accuracy, letter_probability, text_accuracy, both_accuracy,
      open_accuracy, paraphrase_probability;
  std::vector<ItemMetrics> per_item;  ///< in the order of the token file
};

/// Collective over layout.world(); data ranks share the sequences; the result is complete on every
/// rank. `reference`, of the same layout and vocabulary, is what KL is taken from; null: no KL.
/// @throws InputError for a sequence without supervised tokens, too long for the model or with
/// tokens outside its vocabulary; NumericalError naming the item if a log-probability is NaN or
/// infinite.
SetMetrics evaluate(const CausalLM& model, const dist::ParallelLayout& layout,
                    const io::TokenSet& set, std::int64_t batch_tokens,
                    const CausalLM* reference = nullptr);

}  // namespace mrp::shard
