#include "shard/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "shard/batches.hpp"
#include "shard/evaluate/options.hpp"
#include "shard/evaluate/sequence_scores.hpp"

namespace mrp::shard {
namespace {

/// @throws InputError unless the model can run every sequence and each has something to predict.
void check_supervised(const io::ModelConfig& config, const io::Sequences& sequences,
                      const std::string& what) {
  check_sequences(config, sequences, what);
  for (std::int64_t index = 0; index < sequences.count(); ++index) {
    if (std::ranges::count(sequences.mask(index), 0) == sequences.length(index)) {
      throw dist::InputError(fmt::format(
          "{}, sequence {} has no supervised tokens; give the record an answer", what, index));
    }
  }
}

void check_finite(double value, const std::string& what, std::size_t sequence) {
  if (std::isfinite(value)) return;
  throw dist::NumericalError(
      fmt::format("{}, sequence {}: the log-probability is {}; check the checkpoint, or run with "
                  "dtype f32",
                  what, sequence, value));
}

std::vector<ItemMetrics> item_metrics(const io::TokenSet& set, const std::vector<ItemScore>& scores,
                                      bool has_reference) {
  std::vector<ItemMetrics> items(scores.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const ItemScore& score = scores[i];
    ItemMetrics& item = items[i];
    item.id = set.ids[i];
    item.nll = -score.answer.log_probability;
    item.tokens = std::llround(score.answer.tokens);
    item.exact_memorization = score.exact_memorization;
    item.extraction_strength = score.extraction_strength;
    item.min_k = score.min_k;
    item.min_k_plus_plus = score.min_k_plus_plus;
    if (!set.zlib_bytes.empty()) {
      item.zlib = item.nll_per_token() / static_cast<double>(set.zlib_bytes[i]);
    }
    if (has_reference) item.kl = score.kl;
    if (!set.asks_for_letter(static_cast<std::int64_t>(i))) continue;
    item.letter_correct = score.letter_correct;
    item.letter_probability = score.letter_probability;
  }
  return items;
}

/// `value` is a member of ItemMetrics, a number or an optional one.
template <class Value>
std::optional<double> mean(const std::vector<ItemMetrics>& items, Value value) {
  double sum = 0;
  double count = 0;
  for (const ItemMetrics& item : items) {
    if (const std::optional<double> one = std::invoke(value, item)) {
      sum += *one;
      count += 1;
    }
  }
  return count > 0 ? std::optional(sum / count) : std::nullopt;
}

SetMetrics summarise(std::vector<ItemMetrics> items) {
  SetMetrics metrics;
  metrics.items = static_cast<std::int64_t>(items.size());
  metrics.nll = mean(items, &ItemMetrics::nll_per_token).value_or(0);
  metrics.answer_probability = mean(items, &ItemMetrics::answer_probability).value_or(0);
  metrics.exact_memorization = mean(items, &ItemMetrics::exact_memorization).value_or(0);
  metrics.letter_accuracy = mean(items, &ItemMetrics::letter_correct);
  metrics.letter_probability = mean(items, &ItemMetrics::letter_probability);
  metrics.text_accuracy = mean(items, &ItemMetrics::text_correct);
  metrics.both_accuracy = mean(items, &ItemMetrics::both_correct);
  metrics.open_accuracy = mean(items, &ItemMetrics::open_correct);
  metrics.paraphrase_probability = mean(items, &ItemMetrics::paraphrase_probability);
  metrics.per_item = std::move(items);
  return metrics;
}

}  // namespace

double ItemMetrics::answer_probability() const {
  return std::exp(-nll_per_token());
}

SetMetrics evaluate(const CausalLM& model, const dist::ParallelLayout& layout,
                    const io::TokenSet& set, std::int64_t batch_tokens, const CausalLM* reference) {
  const c10::InferenceMode inference;
  const io::Sequences& options = set.options.sequences;
  const std::string what_items = fmt::format("set {}", set.name);
  const std::string what_options = fmt::format("options of set {}", set.name);
  dist::agree(layout.world(), [&] {
    check_supervised(model.config(), set.items, what_items);
    check_supervised(model.config(), options, what_options);
    if (reference != nullptr) check_sequences(reference->config(), set.items, what_items);
  });
  dist::log::Progress progress(fmt::format("evaluate {}", set.name),
                               std::ssize(set.items.token_ids) + std::ssize(options.token_ids),
                               "tokens");
  const ScoringRun run{model, layout, batch_tokens, progress};
  const auto scores = score_items(run, reference, set);
  const auto option_scores = score_options(run, options);
  dist::agree(layout.world(), [&] {
    for (std::size_t i = 0; i < scores.size(); ++i) {
      check_finite(scores[i].answer.log_probability, what_items, i);
    }
    for (std::size_t i = 0; i < option_scores.size(); ++i) {
      check_finite(option_scores[i].log_probability, what_options, i);
    }
  });
  std::vector<ItemMetrics> items = item_metrics(set, scores, reference != nullptr);
  add_option_metrics(set, option_scores, items);
  return summarise(std::move(items));
}

}  // namespace mrp::shard
