#include "shard/model/vocab_parallel.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

namespace mrp::shard {
namespace {

/// Bound of the logits that exist at a time.
constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;

/// Of each row of scores [n × slice], over all slices.
struct Best {
  torch::Tensor score;
  torch::Tensor token;
};

Best find_best(const CausalLM& model, const torch::Tensor& scores) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto [local_max, local_argmax] = scores.max(1);
  // A NaN wins, and nobody has its token.
  const torch::Tensor max = model.collectives().all_reduce(
      torch::nan_to_num(local_max, kInfinity, kInfinity, -kInfinity), dist::ReduceOp::max);
  const torch::Tensor candidate = (local_argmax + model.vocab_range().begin)
                                      .masked_fill(local_max != max, model.config().vocab_size);
  return {max, model.collectives().all_reduce(candidate, dist::ReduceOp::min)};
}

TokenScores score_chunk(const CausalLM& model, const torch::Tensor& rows,
                        const torch::Tensor& targets) {
  const TensorCollectives& ranks = model.collectives();
  const dist::Range slice = model.vocab_range();
  const torch::Tensor logits = model.local_logits(rows);
  const Best best = find_best(model, logits);
  const torch::Tensor shifted = logits - best.score.unsqueeze(1);
  // Both sums in one message.
  const torch::Tensor sums = ranks.all_reduce(torch::stack(
      {shifted.exp().sum(1), pick(shifted, targets.unsqueeze(1), slice, 0.0).squeeze(1)}));
  return {(sums[1] - sums[0].log()).cpu(), (best.token == targets).cpu()};
}

}  // namespace

std::int64_t rows_at_a_time(const CausalLM& model) {
  const std::int64_t columns = model.config().vocab_size / model.collectives().size() + 1;
  return std::max<std::int64_t>(kLogitBytes / (columns * std::int64_t{sizeof(float)}), 1);
}

torch::Tensor pick(const torch::Tensor& logits, const torch::Tensor& tokens, dist::Range slice,
                   double missing) {
  const torch::Tensor elsewhere = (tokens < slice.begin) | (tokens >= slice.end);
  return logits.gather(1, (tokens - slice.begin).masked_fill(elsewhere, 0))
      .masked_fill(elsewhere, missing);
}

TokenScores score_tokens(const CausalLM& model, const torch::Tensor& rows,
                         const torch::Tensor& targets) {
  const c10::InferenceMode inference;
  const torch::Tensor local_targets = targets.to(rows.device());
  std::vector<torch::Tensor> log_probability = {torch::empty({0}, torch::kFloat32)};
  std::vector<torch::Tensor> is_argmax = {torch::empty({0}, torch::kBool)};
  const std::int64_t step = rows_at_a_time(model);
  for (std::int64_t begin = 0; begin < rows.size(0); begin += step) {
    const std::int64_t count = std::min(step, rows.size(0) - begin);
    const TokenScores scores =
        score_chunk(model, rows.narrow(0, begin, count), local_targets.narrow(0, begin, count));
    log_probability.push_back(scores.log_probability);
    is_argmax.push_back(scores.is_argmax);
  }
  return {torch::cat(log_probability), torch::cat(is_argmax)};
}

torch::Tensor logits_of(const CausalLM& model, const torch::Tensor& rows,
                        const torch::Tensor& tokens) {
  const c10::InferenceMode inference;
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const torch::Tensor local_tokens = tokens.to(rows.device());
  std::vector<torch::Tensor> picked = {torch::empty({0, tokens.size(1)}, torch::kFloat32)};
  const std::int64_t step = rows_at_a_time(model);
  for (std::int64_t begin = 0; begin < rows.size(0); begin += step) {
    const std::int64_t count = std::min(step, rows.size(0) - begin);
    const torch::Tensor local =
        pick(model.local_logits(rows.narrow(0, begin, count)), local_tokens.narrow(0, begin, count),
             model.vocab_range(), kNone);
    picked.push_back(model.collectives().all_reduce(local, dist::ReduceOp::max).cpu());
  }
  return torch::cat(picked);
}

torch::Tensor best_tokens(const CausalLM& model, const torch::Tensor& rows,
                          const TokenScore& score) {
  const c10::InferenceMode inference;
  std::vector<torch::Tensor> tokens = {torch::empty({0}, torch::kInt64)};
  const std::int64_t step = rows_at_a_time(model);
  for (std::int64_t begin = 0; begin < rows.size(0); begin += step) {
    const std::int64_t count = std::min(step, rows.size(0) - begin);
    const torch::Tensor logits = model.local_logits(rows.narrow(0, begin, count));
    tokens.push_back(find_best(model, score(logits, begin)).token.cpu());
  }
  return torch::cat(tokens);
}

}  // namespace mrp::shard
