// What is asked of the logits, computed without gathering them: each tensor rank has a slice of the
// vocabulary.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

/// Rows [n × hidden] whose logits may exist at a time: the same on all tensor ranks, which go
/// through the chunks together.
std::int64_t rows_at_a_time(const CausalLM& model);

/// Entries `tokens` [n × m] of the local logits [n × slice]; `missing` where another rank has them.
/// Not collective.
torch::Tensor pick(const torch::Tensor& logits, const torch::Tensor& tokens, dist::Range slice,
                   double missing);

/// Collective over the tensor ranks, and differentiable: Σ over the vocabulary of `local` [n ×
/// slice]: [n], complete on all ranks.
torch::Tensor sum_over_vocabulary(const CausalLM& model, const torch::Tensor& local);

/// Collective over the tensor ranks, and differentiable: log Σ exp over the vocabulary of `logits`
/// [n × slice]: [n × 1].
torch::Tensor log_normalizer(const CausalLM& model, const torch::Tensor& logits);

/// Collective over the tensor ranks. Σ over the vocabulary of p (log p − log q) in nats, p =
/// softmax(`p_logits`) [n × slice]: [n]. The gradient is that of `q_logits` only, and not
/// collective.
torch::Tensor kl_divergence(const CausalLM& model, const torch::Tensor& p_logits,
                            const torch::Tensor& q_logits);

/// On the host, complete on all tensor ranks.
struct TokenScores {
  torch::Tensor log_probability;  ///< fp32 [n], of the target
  torch::Tensor is_argmax;        ///< bool [n]; among equal logits the lowest token counts
};

/// Collective over the tensor ranks. rows [n × hidden] of the residual stream, targets i64 [n].
TokenScores score_tokens(const CausalLM& model, const torch::Tensor& rows,
                         const torch::Tensor& targets);

/// Collective over the tensor ranks. The logits of tokens [n × m] (i64, −1: none) after rows [n ×
/// hidden]: fp32 [n × m] on the host, complete on all ranks, −inf where there is no token.
torch::Tensor logits_of(const CausalLM& model, const torch::Tensor& rows,
                        const torch::Tensor& tokens);

/// What tokens are ranked by, made of the logits fp32 [m × slice] of rows begin … begin + m − 1.
using TokenScore = std::function<torch::Tensor(torch::Tensor logits, std::int64_t begin)>;

/// Collective over the tensor ranks. The token with the highest score after each of rows [n ×
/// hidden]: i64 [n] on the host, complete on all ranks. Among equal scores the lowest token counts;
/// where one is NaN, the result is the size of the vocabulary.
torch::Tensor best_tokens(const CausalLM& model, const torch::Tensor& rows,
                          const TokenScore& score);

}  // namespace mrp::shard
