// How many tokens go through a model when a set does, by the plans of capture and evaluate.
#pragma once

#include <cstdint>

#include "io/token_dataset.hpp"

namespace mrp::jobs {

/// Sequences that run together.
struct Passes {
  double tokens = 0;          ///< padding included
  double squares = 0;         ///< Σ length²
  double tokens_of_rank = 0;  ///< of the data rank with the most
};

/// On `data` ranks in batches of at most `budget` tokens, as shard/batches.hpp plans them.
Passes plan_passes(const io::Sequences& sequences, std::int64_t budget, int data);

/// The same packed, as shard/evaluate/packed_plan.hpp plans them.
Passes plan_packed(const io::Sequences& sequences, std::int64_t budget, int data);

}  // namespace mrp::jobs
