// Which sequences evaluate runs together: packed, without what is behind their last target.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "io/token_dataset.hpp"
#include "shard/batches.hpp"
#include "shard/packing.hpp"

namespace mrp::shard {

/// The same on every rank. Data ranks take whole prefix groups with about equal tokens; a batch has
/// at most `batch_tokens` tokens, padding included, and at least one group.
class PackedPlan {
 public:
  /// Refers to `sequences`.
  PackedPlan(const io::Sequences& sequences, int data_ranks, std::int64_t batch_tokens);

  /// Batches of the data rank that has the most.
  std::int64_t rounds() const { return plan_.rounds(); }
  /// Indices of the sequences of a batch, in its order; empty in rounds that a rank sits out.
  std::vector<std::int64_t> members(int data_rank, std::int64_t round) const;
  PackedBatch batch(int data_rank, std::int64_t round) const;
  /// Rows and their length.
  std::pair<std::int64_t, std::int64_t> shape(int data_rank, std::int64_t round) const;
  /// Tokens of the sequences of all data ranks in a round.
  std::int64_t tokens(std::int64_t round) const;

 private:
  /// Indices of the groups.
  std::span<const std::int64_t> groups(int data_rank, std::int64_t round) const;

  const io::Sequences* sequences_;
  std::vector<TokenSpan> spans_;
  std::vector<PrefixGroup> groups_;
  BatchPlan plan_;
};

}  // namespace mrp::shard
