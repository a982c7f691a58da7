// Sequences side by side in the rows of a batch, so that little is padded; those that begin alike
// run their beginning once.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "dist/partition.hpp"

namespace mrp::shard {

using TokenSpan = std::span<const std::int32_t>;

/// The beginning of a sequence that predicts its targets: `mask[t]` is 1 where token t predicts
/// one. At least one token.
TokenSpan up_to_last_target(TokenSpan tokens, std::span<const std::uint8_t> mask);

/// Neighbours that begin alike: their common prefix once, behind it the rest of each.
struct PrefixGroup {
  dist::Range members;
  std::int64_t prefix = 0;  ///< tokens; of a sequence that is alone: all
  std::int64_t length = 0;  ///< slots that the group takes
};

/// Groups of neighbours, in order, all sequences covered. A sequence joins the one before where
/// that saves at least a third of it.
std::vector<PrefixGroup> prefix_groups(std::span<const TokenSpan> sequences);

struct PackedBatch {
  torch::Tensor tokens;  ///< i64 [rows × length], 0 behind the last
  /// Of each slot, its position in its sequence, i64 [rows × length]. Undefined, as `seen`, where
  /// every row is one sequence.
  torch::Tensor positions;
  /// Of each slot t, what it attends to, i32 [rows × length × 3]: slots first ≤ s < second, and
  /// third ≤ s ≤ t.
  torch::Tensor seen;
  std::int64_t longest = 0;  ///< tokens of the longest sequence

  /// Where token t of sequence i stands: an index into [rows · length].
  std::int64_t slot(std::int64_t i, std::int64_t t) const;

  struct Place {
    std::int64_t prefix, rest;  ///< slots of the first token, and of the first behind the prefix
    std::int64_t prefix_length;
  };
  std::vector<Place> places;  ///< of each sequence
};

/// The groups fill rows as long as the longest of them, the longest first.
PackedBatch pack(std::span<const TokenSpan> sequences, std::span<const PrefixGroup> groups);
PackedBatch pack(std::span<const TokenSpan> sequences);

/// Number of rows that `pack` makes of groups of these lengths.
std::int64_t packed_rows(std::span<const std::int64_t> lengths);

/// `seen` as a mask, bool [rows × 1 × length × length].
torch::Tensor seen_mask(const torch::Tensor& seen);

}  // namespace mrp::shard
