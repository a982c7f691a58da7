// What is asked of the whole next-token distribution, without gathering it: each tensor rank has a
// slice of the vocabulary.
#pragma once

#include <torch/types.h>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

/// Of log p under p itself, fp32 [n] on the host, complete on all tensor ranks.
struct LogProbabilityMoments {
  torch::Tensor mean;       ///< Σ_v p log p
  torch::Tensor deviation;  ///< the variance Σ_v p (log p)² − mean² is taken as 1e-6 at least
};

/// Collective over the tensor ranks. `rows` [n × hidden] of the residual stream.
LogProbabilityMoments log_probability_moments(const CausalLM& model, const torch::Tensor& rows);

/// Collective over the tensor ranks. KL(reference ‖ model) = Σ_v p_ref (log p_ref − log p) in nats,
/// fp32 [n] on the host, complete on all tensor ranks. Row i of either is the residual stream of
/// that model [n × hidden] at the same position.
/// @pre equal vocabularies, split over the same tensor ranks
torch::Tensor kl_divergence(const CausalLM& reference, const torch::Tensor& reference_rows,
                            const CausalLM& model, const torch::Tensor& rows);

}  // namespace mrp::shard
