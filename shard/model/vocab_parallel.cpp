#include "shard/model/vocab_parallel.hpp"
#include <torch/autograd.h>
#include <torch/utils.h>

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

/// Σ p (log p − log q) over the vocabulary, [n]; its gradient is q − p. Kept as one function,
/// because the vocabulary is wide. Computed as Σ p (q/p − 1 − log(q/p)), which is the same: no term
/// is negative, so that nothing is left of rounding where p and q are alike.
struct KlDivergence : torch::autograd::Function<KlDivergence> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& p_logits, const torch::Tensor& q_logits,
                               const CausalLM* model) {
    torch::Tensor log_p = p_logits - log_normalizer(*model, p_logits);
    torch::Tensor log_q = q_logits - log_normalizer(*model, q_logits);
    const torch::Tensor p = log_p.exp();
    const torch::Tensor ratio = (log_q - log_p).clamp_max(80);  // its exponential is finite
    const torch::Tensor sums = sum_over_vocabulary(*model, torch::expm1(ratio).sub_(ratio).mul_(p));
    context->save_for_backward({log_q.exp_().sub_(p)});
    return sums;
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    return {{}, context->get_saved_variables()[0] * gradients[0].unsqueeze(1), {}};
  }
};

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

torch::Tensor sum_over_vocabulary(const CausalLM& model, const torch::Tensor& local) {
  return reduce_from_ranks(local.sum(-1), model.collectives());
}

torch::Tensor log_normalizer(const CausalLM& model, const torch::Tensor& logits) {
  const torch::Tensor max =
      model.collectives().all_reduce(logits.detach().amax(1), dist::ReduceOp::max).unsqueeze(1);
  return sum_over_vocabulary(model, (logits - max).exp()).log().unsqueeze(1) + max;
}

torch::Tensor kl_divergence(const CausalLM& model, const torch::Tensor& p_logits,
                            const torch::Tensor& q_logits) {
  return KlDivergence::apply(p_logits, q_logits, &model);
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
