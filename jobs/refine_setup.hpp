// From a job's settings to what is trained and how.
#pragma once

#include "jobs/stage_graph.hpp"
#include "shard/train/refine.hpp"

namespace mrp::jobs {

/// Collective over the world. Where changes are confined: by the states of `kept`, and by the
/// gradients of the predictions of `predicted`.
shard::TrainableOptions trainable_options(const Job& job, shard::CausalLM& model,
                                          const dist::ParallelLayout& layout,
                                          const io::TokenSet& forget, const io::TokenSet& kept,
                                          const io::TokenSet& predicted);

/// Directory of the saved state of this very training on this number of ranks.
std::filesystem::path refine_state(const Job& job);

shard::RefineOptions refine_options(const Job& job, const shard::CausalLM& model);

}  // namespace mrp::jobs
