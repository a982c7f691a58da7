#include "shard/evaluate/sequence_scores.hpp"

#include <algorithm>
#include <numeric>
#include <span>

#include "dist/error.hpp"
#include "shard/evaluate/distribution.hpp"
#include "shard/evaluate/packed_plan.hpp"
#include "shard/evaluate/token_metrics.hpp"
#include "shard/model/vocab_parallel.hpp"

namespace mrp::shard {
namespace {

/// The rows of a batch at which something is predicted, sequence after sequence.
struct Rows {
  std::vector<std::int64_t> flat;    // slot of the batch
  std::vector<std::int64_t> target;  // token
  std::vector<std::size_t> end;      // of each member
};

Rows target_rows(const io::Sequences& sequences, std::span<const std::int64_t> members,
                 const PackedBatch& batch) {
  Rows rows;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto tokens = sequences.tokens(members[i]);
    const auto mask = sequences.mask(members[i]);
    for (std::size_t t = 0; t < mask.size(); ++t) {
      if (mask[t] == 0) continue;
      MRP_EXPECT(t + 1 < tokens.size(), "the last position of a sequence predicts nothing");
      rows.flat.push_back(batch.slot(static_cast<std::int64_t>(i), static_cast<std::int64_t>(t)));
      rows.target.push_back(tokens[t + 1]);
    }
    rows.end.push_back(rows.flat.size());
  }
  return rows;
}

torch::Tensor select(const torch::Tensor& states, const std::vector<std::int64_t>& flat) {
  return states.flatten(0, 1).index_select(0,
                                           torch::tensor(flat, torch::kInt64).to(states.device()));
}

TokenScores score_rows(const CausalLM& model, const torch::Tensor& rows_of_states,
                       const Rows& rows) {
  return score_tokens(model, rows_of_states, torch::tensor(rows.target, torch::kInt64));
}

/// The part of a host tensor that belongs to member `i`.
template <class T>
std::span<const T> part(const torch::Tensor& values, const Rows& rows, std::size_t i) {
  const std::size_t begin = i == 0 ? 0 : rows.end[i - 1];
  return {values.const_data_ptr<T>() + begin, rows.end[i] - begin};
}

double sum(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

SequenceScore sequence_score(std::span<const float> log_probability) {
  return {sum(log_probability), static_cast<double>(log_probability.size())};
}

void add_items(const CausalLM& model, const torch::Tensor& states, const Rows& rows,
               std::span<const std::int64_t> members, std::vector<ItemScore>& items) {
  const torch::Tensor predicting = select(states, rows.flat);
  const TokenScores found = score_rows(model, predicting, rows);
  const LogProbabilityMoments moments = log_probability_moments(model, predicting);
  const torch::Tensor standard = (found.log_probability - moments.mean) / moments.deviation;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto log_probability = part<float>(found.log_probability, rows, i);
    const auto is_argmax = part<bool>(found.is_argmax, rows, i);
    const auto standardised = part<float>(standard, rows, i);
    ItemScore& item = items[static_cast<std::size_t>(members[i])];
    item.answer = sequence_score(log_probability);
    item.exact_memorization =
        static_cast<double>(std::ranges::count(is_argmax, true)) / item.answer.tokens;
    item.extraction_strength = extraction_strength(is_argmax);
    item.min_k = min_k({log_probability.begin(), log_probability.end()}, kMinKShare);
    item.min_k_plus_plus = min_k({standardised.begin(), standardised.end()}, kMinKShare);
  }
}

void add_kl(const CausalLM& reference, const torch::Tensor& reference_states, const CausalLM& model,
            const torch::Tensor& states, const Rows& rows, std::span<const std::int64_t> members,
            std::vector<ItemScore>& items) {
  const torch::Tensor divergence = kl_divergence(reference, select(reference_states, rows.flat),
                                                 model, select(states, rows.flat));
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto of_item = part<float>(divergence, rows, i);
    items[static_cast<std::size_t>(members[i])].kl =
        sum(of_item) / static_cast<double>(of_item.size());
  }
}

/// Letters of the items among `members` that ask for one.
void add_letters(const CausalLM& model, const torch::Tensor& states, const PackedBatch& batch,
                 const io::TokenSet& set, std::span<const std::int64_t> members,
                 std::vector<ItemScore>& items) {
  std::vector<std::int64_t> flat;
  std::vector<std::size_t> owner;
  std::int64_t most = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (!set.asks_for_letter(members[i])) continue;
    const auto item = static_cast<std::size_t>(members[i]);
    flat.push_back(batch.slot(static_cast<std::int64_t>(i), set.letter_position[item]));
    owner.push_back(item);
    most = std::max(most, std::ssize(set.letters(members[i])));
  }
  if (owner.empty()) return;
  torch::Tensor tokens =
      torch::full({static_cast<std::int64_t>(owner.size()), most}, -1, torch::kInt64);
  for (std::size_t i = 0; i < owner.size(); ++i) {
    std::ranges::copy(set.letters(static_cast<std::int64_t>(owner[i])),
                      tokens.data_ptr<std::int64_t>() + static_cast<std::int64_t>(i) * most);
  }
  const torch::Tensor logits = logits_of(model, select(states, flat), tokens);
  const torch::Tensor probability = logits.softmax(1);
  const torch::Tensor chosen = logits.argmax(1);
  for (std::size_t i = 0; i < owner.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const std::int64_t answer = set.answer_index[owner[i]];
    items[owner[i]].letter_correct = chosen[row].item<std::int64_t>() == answer ? 1.0 : 0.0;
    items[owner[i]].letter_probability = probability[row][answer].item<double>();
  }
}

/// Collective over the world. `add(members, batch, scores)` for every batch of this data rank.
template <class Score, class Add>
std::vector<Score> score_batches(const ScoringRun& run, const io::Sequences& sequences, Add add) {
  static_assert(sizeof(Score) % sizeof(double) == 0);
  const dist::Communicator& data = run.layout.data();
  const PackedPlan plan(sequences, data.size(), run.batch_tokens);
  std::vector<Score> scores(static_cast<std::size_t>(sequences.count()));
  for (std::int64_t round = 0; round < plan.rounds(); ++round) {
    const auto members = plan.members(data.rank(), round);
    if (!members.empty()) add(members, plan.batch(data.rank(), round), scores);
    run.progress.advance(plan.tokens(round));
  }
  data.all_reduce(std::span(reinterpret_cast<double*>(scores.data()),
                            scores.size() * sizeof(Score) / sizeof(double)));
  return scores;
}

}  // namespace

std::vector<ItemScore> score_items(const ScoringRun& run, const CausalLM* reference,
                                   const io::TokenSet& set) {
  return score_batches<ItemScore>(
      run, set.items,
      [&](std::span<const std::int64_t> members, const PackedBatch& batch, auto& items) {
        const Rows rows = target_rows(set.items, members, batch);
        const torch::Tensor states = run.model.hidden_states(batch);
        add_items(run.model, states, rows, members, items);
        add_letters(run.model, states, batch, set, members, items);
        if (reference == nullptr) return;
        add_kl(*reference, reference->hidden_states(batch), run.model, states, rows, members,
               items);
      });
}

std::vector<SequenceScore> score_options(const ScoringRun& run, const io::Sequences& options) {
  return score_batches<SequenceScore>(
      run, options,
      [&](std::span<const std::int64_t> members, const PackedBatch& batch, auto& scores) {
        const Rows rows = target_rows(options, members, batch);
        const torch::Tensor states = run.model.hidden_states(batch);
        const TokenScores found = score_rows(run.model, select(states, rows.flat), rows);
        for (std::size_t i = 0; i < members.size(); ++i) {
          scores[static_cast<std::size_t>(members[i])] =
              sequence_score(part<float>(found.log_probability, rows, i));
        }
      });
}

}  // namespace mrp::shard
