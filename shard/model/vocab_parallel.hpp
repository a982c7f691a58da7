// What is asked of the logits, computed without gathering them: each tensor rank has a slice of the
// vocabulary.
#pragma once

#include <torch/torch.h>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

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

}  // namespace mrp::shard
