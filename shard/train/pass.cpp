#include "shard/train/pass.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "shard/batches.hpp"
#include "shard/model/vocab_parallel.hpp"
#include "shard/packing.hpp"

namespace mrp::shard {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

/// Entries `tokens` [n × m] of the logits [n × slice], complete on all ranks. Tokens below zero
/// give −inf.
torch::Tensor entries(const CausalLM& model, const torch::Tensor& logits,
                      const torch::Tensor& tokens) {
  const torch::Tensor local = pick(logits, tokens, model.vocab_range(), 0.0);
  return reduce_from_ranks(local, model.collectives()).masked_fill(tokens < 0, kNone);
}

/// The letters of the examples that ask for one.
void add_letters(Pass& pass, std::span<const Example> examples, const PackedBatch& batch,
                 const torch::Tensor& states) {
  std::vector<std::int64_t> rows;
  std::vector<std::size_t> owners;
  std::size_t most = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    if (examples[i].letter_position < 0) continue;
    owners.push_back(i);
    rows.push_back(batch.slot(static_cast<std::int64_t>(i), examples[i].letter_position));
    most = std::max(most, examples[i].letters.size());
  }
  if (owners.empty()) return;
  torch::Tensor tokens =
      torch::full({std::ssize(owners), static_cast<std::int64_t>(most)}, -1, torch::kInt64);
  for (std::size_t n = 0; n < owners.size(); ++n) {
    const auto& letters = examples[owners[n]].letters;
    std::copy(letters.begin(), letters.end(), tokens.data_ptr<std::int64_t>() + n * most);
  }
  const torch::Tensor selected =
      states.index_select(0, torch::tensor(rows, torch::kInt64).to(states.device()));
  pass.letter_logits =
      entries(*pass.model, pass.model->local_logits(selected), tokens.to(states.device()));
}

/// What is behind the last position that predicts a token or a letter need not run.
TokenSpan needed(const Example& example) {
  const std::size_t targets = up_to_last_target(example.tokens, example.mask).size();
  const auto letter = static_cast<std::size_t>(example.letter_position + 1);
  return TokenSpan(example.tokens).first(std::max(targets, letter));
}

}  // namespace

torch::Tensor padded(std::span<const Example> examples) {
  std::vector<std::span<const std::int32_t>> tokens;
  for (const Example& example : examples) tokens.push_back(example.tokens);
  return pad(tokens);
}

Pass run(const CausalLM& model, std::span<const Example> examples) {
  Pass pass;
  pass.model = &model;
  pass.examples = std::ssize(examples);
  std::vector<TokenSpan> sequences;
  for (const Example& example : examples) sequences.push_back(needed(example));
  const PackedBatch batch = pack(sequences);
  std::vector<std::int64_t> rows, targets, owners;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& example = examples[i];
    for (std::size_t t = 0; t + 1 < example.tokens.size(); ++t) {
      if (example.mask[t] == 0) continue;
      owners.push_back(static_cast<std::int64_t>(i));
      rows.push_back(batch.slot(owners.back(), static_cast<std::int64_t>(t)));
      targets.push_back(example.tokens[t + 1]);
    }
  }
  const torch::Tensor states = model.hidden_states(batch).flatten(0, 1);
  const auto to_device = [&](const std::vector<std::int64_t>& values) {
    return torch::tensor(values, torch::kInt64).to(states.device());
  };
  pass.targets = to_device(targets);
  pass.owner = to_device(owners);
  pass.logits = model.local_logits(states.index_select(0, to_device(rows)));
  add_letters(pass, examples, batch, states);
  return pass;
}

torch::Tensor log_probability(const Pass& pass) {
  const torch::Tensor picked = entries(*pass.model, pass.logits, pass.targets.unsqueeze(1));
  return (picked - log_normalizer(*pass.model, pass.logits)).squeeze(1);
}

torch::Tensor mean_by_example(const Pass& pass, const torch::Tensor& values) {
  const torch::Tensor sums =
      torch::zeros({pass.examples}, values.options()).index_add(0, pass.owner, values);
  const torch::Tensor counts = torch::zeros({pass.examples}, values.options())
                                   .index_add(0, pass.owner, torch::ones_like(values));
  return sums / counts.clamp_min(1);
}

torch::Tensor spread(const torch::Tensor& values) {
  const torch::Tensor counts = values > kNone;
  const torch::Tensor count = counts.sum(-1, /*keepdim=*/true);
  const torch::Tensor known = values.masked_fill(counts.logical_not(), 0.0);
  const torch::Tensor centred =
      (known - known.sum(-1, true) / count).masked_fill(counts.logical_not(), 0.0);
  return torch::sqrt(centred.square().sum(-1) / count.squeeze(-1) + 0.01) - 0.1;
}

torch::Tensor vocabulary_spread(const CausalLM& model, const torch::Tensor& logits) {
  const auto size = static_cast<double>(model.config().vocab_size);
  const torch::Tensor mean = sum_over_vocabulary(model, logits) / size;
  const torch::Tensor centred = logits - copy_to_ranks(mean.unsqueeze(1), model.collectives());
  return torch::sqrt(sum_over_vocabulary(model, centred.square()) / size + 0.01) - 0.1;
}

}  // namespace mrp::shard
