#include "jobs/passes.hpp"

#include <algorithm>
#include <utility>

#include "shard/batches.hpp"
#include "shard/evaluate/packed_plan.hpp"

namespace mrp::jobs {
namespace {

/// shape(data rank, round): rows of a batch and their length.
template <class Shape>
Passes count_passes(int data, std::int64_t rounds, Shape shape) {
  Passes passes;
  for (int rank = 0; rank < data; ++rank) {
    double own = 0;
    for (std::int64_t round = 0; round < rounds; ++round) {
      const auto [rows, length] = shape(rank, round);
      own += static_cast<double>(rows) * static_cast<double>(length);
      passes.squares += static_cast<double>(rows) * static_cast<double>(length * length);
    }
    passes.tokens += own;
    passes.tokens_of_rank = std::max(passes.tokens_of_rank, own);
  }
  return passes;
}

}  // namespace

Passes plan_passes(const io::Sequences& sequences, std::int64_t budget, int data) {
  const auto plan =
      shard::plan_batches(sequences, shard::all_items(sequences.count()), data, budget);
  return count_passes(data, plan.rounds(), [&](int rank, std::int64_t round) {
    const auto members = plan.members(plan.batch(rank, round));
    return std::pair(std::ssize(members), members.empty() ? 0 : sequences.length(members.back()));
  });
}

Passes plan_packed(const io::Sequences& sequences, std::int64_t budget, int data) {
  const shard::PackedPlan plan(sequences, data, budget);
  return count_passes(data, plan.rounds(),
                      [&](int rank, std::int64_t round) { return plan.shape(rank, round); });
}

}  // namespace mrp::jobs
