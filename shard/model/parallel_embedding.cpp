#include "shard/model/parallel_embedding.hpp"

#include <utility>

namespace mrp::shard {

ParallelEmbedding::ParallelEmbedding(torch::Tensor weight, dist::Range range,
                                     const TensorCollectives& collectives)
    : weight_(std::move(weight)), range_(range), collectives_(&collectives) {}

torch::Tensor ParallelEmbedding::forward(const torch::Tensor& tokens) const {
  if (collectives_->size() == 1) return torch::embedding(weight_, tokens);
  const torch::Tensor elsewhere = (tokens < range_.begin) | (tokens >= range_.end);
  torch::Tensor states =
      torch::embedding(weight_, (tokens - range_.begin).masked_fill(elsewhere, 0));
  states = states.masked_fill(elsewhere.unsqueeze(-1), 0.0);
  // Exact in any type: all terms of the sum but one are zero.
  return reduce_from_ranks(states, *collectives_);
}

}  // namespace mrp::shard
