#include "shard/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "shard/batches.hpp"
#include "shard/model/vocab_parallel.hpp"

namespace mrp::shard {
namespace {

/// Of one sequence. Sums of doubles only, so that an all-reduce over data ranks completes them.
struct SequenceScore {
  double log_probability = 0;
  double tokens = 0;
  double argmax = 0;

  double mean() const { return log_probability / tokens; }
};

struct LetterScore {
  double correct = 0;
  double probability = 0;
};

/// The rows of a batch at which something is predicted.
struct Rows {
  std::vector<std::int64_t> flat;    // index into [members · length]
  std::vector<std::int64_t> owner;   // sequence
  std::vector<std::int64_t> target;  // token
};

std::vector<std::int64_t> all_of(const io::Sequences& sequences) {
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(sequences.count()));
  std::iota(chosen.begin(), chosen.end(), 0);
  return chosen;
}

bool asks_for_letter(const io::TokenSet& set, std::size_t item) {
  return set.letter_position[item] >= 0 && set.answer_index[item] >= 0;
}

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

Rows target_rows(const io::Sequences& sequences, std::span<const std::int64_t> members,
                 std::int64_t length) {
  Rows rows;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto tokens = sequences.tokens(members[i]);
    const auto mask = sequences.mask(members[i]);
    for (std::size_t t = 0; t < mask.size(); ++t) {
      if (mask[t] == 0) continue;
      MRP_EXPECT(t + 1 < tokens.size(), "the last position of a sequence predicts nothing");
      rows.flat.push_back(static_cast<std::int64_t>(i) * length + static_cast<std::int64_t>(t));
      rows.owner.push_back(members[i]);
      rows.target.push_back(tokens[t + 1]);
    }
  }
  return rows;
}

torch::Tensor select(const torch::Tensor& states, const std::vector<std::int64_t>& flat) {
  return states.flatten(0, 1).index_select(0,
                                           torch::tensor(flat, torch::kInt64).to(states.device()));
}

void add_scores(const CausalLM& model, const torch::Tensor& states, const Rows& rows,
                std::vector<SequenceScore>& scores) {
  const TokenScores found =
      score_tokens(model, select(states, rows.flat), torch::tensor(rows.target, torch::kInt64));
  const auto* log_probability = found.log_probability.const_data_ptr<float>();
  const auto* is_argmax = found.is_argmax.const_data_ptr<bool>();
  for (std::size_t i = 0; i < rows.owner.size(); ++i) {
    SequenceScore& score = scores[static_cast<std::size_t>(rows.owner[i])];
    score.log_probability += double{log_probability[i]};
    score.tokens += 1;
    score.argmax += is_argmax[i] ? 1 : 0;
  }
}

/// Letters of the items among `members` that ask for one.
void add_letters(const CausalLM& model, const torch::Tensor& states, const io::TokenSet& set,
                 std::span<const std::int64_t> members, std::vector<LetterScore>& letters) {
  std::vector<std::int64_t> flat;
  std::vector<std::size_t> owner;
  std::int64_t most = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto item = static_cast<std::size_t>(members[i]);
    if (!asks_for_letter(set, item)) continue;
    flat.push_back(static_cast<std::int64_t>(i) * states.size(1) + set.letter_position[item]);
    owner.push_back(item);
    most = std::max(most, set.letter_offsets[item + 1] - set.letter_offsets[item]);
  }
  if (owner.empty()) return;
  torch::Tensor tokens =
      torch::full({static_cast<std::int64_t>(owner.size()), most}, -1, torch::kInt64);
  for (std::size_t i = 0; i < owner.size(); ++i) {
    std::copy(set.letter_token_ids.begin() + set.letter_offsets[owner[i]],
              set.letter_token_ids.begin() + set.letter_offsets[owner[i] + 1],
              tokens.data_ptr<std::int64_t>() + static_cast<std::int64_t>(i) * most);
  }
  const torch::Tensor logits = logits_of(model, select(states, flat), tokens);
  const torch::Tensor probability = logits.softmax(1);
  const torch::Tensor chosen = logits.argmax(1);
  for (std::size_t i = 0; i < owner.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const std::int64_t answer = set.answer_index[owner[i]];
    letters[owner[i]] = {chosen[row].item<std::int64_t>() == answer ? 1.0 : 0.0,
                         probability[row][answer].item<double>()};
  }
}

template <class Score>
void sum_over(const dist::Communicator& data, std::vector<Score>& scores) {
  static_assert(sizeof(Score) % sizeof(double) == 0);
  data.all_reduce(std::span(reinterpret_cast<double*>(scores.data()),
                            scores.size() * sizeof(Score) / sizeof(double)));
}

/// Collective over the world. Scores all sequences; with `letters`, those are the items of `set`.
std::vector<SequenceScore> score(const CausalLM& model, const dist::ParallelLayout& layout,
                                 const io::TokenSet& set, const io::Sequences& sequences,
                                 std::int64_t batch_tokens, dist::log::Progress& progress,
                                 std::vector<LetterScore>* letters) {
  std::vector<SequenceScore> scores(static_cast<std::size_t>(sequences.count()));
  const BatchPlan plan =
      plan_batches(sequences, all_of(sequences), layout.data().size(), batch_tokens);
  for (std::int64_t round = 0; round < plan.rounds(); ++round) {
    const auto members = plan.members(plan.batch(layout.data().rank(), round));
    if (!members.empty()) {
      const torch::Tensor tokens = pad(sequences, members);
      const torch::Tensor states = model.hidden_states(tokens);
      add_scores(model, states, target_rows(sequences, members, tokens.size(1)), scores);
      if (letters != nullptr) add_letters(model, states, set, members, *letters);
    }
    progress.advance(round_tokens(plan, sequences, round));
  }
  sum_over(layout.data(), scores);
  if (letters != nullptr) sum_over(layout.data(), *letters);
  return scores;
}

/// For each item whether the right choice of a form scores highest; among equals the first counts.
void add_choices(const io::TokenSet& set, const std::vector<SequenceScore>& scores,
                 io::OptionForm form, std::optional<double> ItemMetrics::*metric,
                 std::vector<ItemMetrics>& items) {
  std::vector<double> best(items.size(), -std::numeric_limits<double>::infinity());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto item = static_cast<std::size_t>(set.options.item[i]);
    if (set.options.form[i] != form || set.answer_index[item] < 0) continue;
    if (scores[i].mean() <= best[item]) continue;
    best[item] = scores[i].mean();
    items[item].*metric = set.options.choice[i] == set.answer_index[item] ? 1.0 : 0.0;
  }
}

void add_paraphrases(const io::TokenSet& set, const std::vector<SequenceScore>& scores,
                     std::vector<ItemMetrics>& items) {
  std::vector<double> sum(items.size(), 0);
  std::vector<double> count(items.size(), 0);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (set.options.form[i] != io::OptionForm::paraphrase) continue;
    const auto item = static_cast<std::size_t>(set.options.item[i]);
    sum[item] += std::exp(scores[i].mean());
    count[item] += 1;
    items[item].paraphrase_probability = sum[item] / count[item];
  }
}

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
  const auto per_token = [](const ItemMetrics& item) -> std::optional<double> {
    return item.nll / static_cast<double>(item.tokens);
  };
  SetMetrics metrics;
  metrics.items = static_cast<std::int64_t>(items.size());
  metrics.nll = mean(items, per_token).value_or(0);
  metrics.answer_probability = mean(items, [&](const ItemMetrics& item) -> std::optional<double> {
                                 return std::exp(-*per_token(item));
                               }).value_or(0);
  metrics.exact_memorization = mean(items, [](const ItemMetrics& item) -> std::optional<double> {
                                 return item.exact_memorization;
                               }).value_or(0);
  metrics.letter_accuracy = mean(items, &ItemMetrics::letter_correct);
  metrics.letter_probability = mean(items, &ItemMetrics::letter_probability);
  metrics.text_accuracy = mean(items, &ItemMetrics::text_correct);
  metrics.open_accuracy = mean(items, &ItemMetrics::open_correct);
  metrics.paraphrase_probability = mean(items, &ItemMetrics::paraphrase_probability);
  metrics.per_item = std::move(items);
  return metrics;
}

void check_finite(const std::vector<SequenceScore>& scores, const std::string& what) {
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i].log_probability)) continue;
    throw dist::NumericalError(
        fmt::format("{}, sequence {}: the log-probability is {}; check the checkpoint, or run with "
                    "dtype f32",
                    what, i, scores[i].log_probability));
  }
}

}  // namespace

SetMetrics evaluate(const CausalLM& model, const dist::ParallelLayout& layout,
                    const io::TokenSet& set, std::int64_t batch_tokens) {
  const c10::InferenceMode inference;
  const io::Sequences& options = set.options.sequences;
  const std::string what_items = fmt::format("set {}", set.name);
  const std::string what_options = fmt::format("options of set {}", set.name);
  dist::agree(layout.world(), [&] {
    check_supervised(model.config(), set.items, what_items);
    check_supervised(model.config(), options, what_options);
  });
  dist::log::Progress progress(fmt::format("evaluate {}", set.name),
                               std::ssize(set.items.token_ids) + std::ssize(options.token_ids),
                               "tokens");
  std::vector<LetterScore> letters(set.ids.size());
  const auto scores = score(model, layout, set, set.items, batch_tokens, progress, &letters);
  const auto option_scores = score(model, layout, set, options, batch_tokens, progress, nullptr);
  dist::agree(layout.world(), [&] {
    check_finite(scores, what_items);
    check_finite(option_scores, what_options);
  });

  std::vector<ItemMetrics> items(set.ids.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].id = set.ids[i];
    items[i].nll = -scores[i].log_probability;
    items[i].tokens = std::llround(scores[i].tokens);
    items[i].exact_memorization = scores[i].argmax / scores[i].tokens;
    if (!asks_for_letter(set, i)) continue;
    items[i].letter_correct = letters[i].correct;
    items[i].letter_probability = letters[i].probability;
  }
  add_choices(set, option_scores, io::OptionForm::list, &ItemMetrics::text_correct, items);
  add_choices(set, option_scores, io::OptionForm::open, &ItemMetrics::open_correct, items);
  add_paraphrases(set, option_scores, items);
  return summarise(std::move(items));
}

}  // namespace mrp::shard
