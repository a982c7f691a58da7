// Forget and retain states of a site as one matrix, and random divisions of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "solver/state_source.hpp"

namespace mrp::solver {

/// The rows of `forget`, then the rows of `retain`. Sequences are numbered 0, 1, … over both sets.
/// Borrows its sources.
class Pool : public StateSource {
 public:
  /// @throws InputError: a set without rows, widths that differ, a sequence list of the wrong
  /// length.
  Pool(const StateSource& forget, const StateSource& retain);

  std::int64_t rows() const override { return forget_.rows() + retain_.rows(); }
  std::int64_t width() const override { return forget_.width(); }
  void read(dist::Range rows, dist::Range columns, std::span<float> out) const override;
  std::span<const std::int64_t> sequences() const override { return sequences_; }

  std::int64_t forget_rows() const { return forget_.rows(); }
  std::int64_t retain_rows() const { return retain_.rows(); }
  std::int64_t forget_sequences() const { return forget_sequences_; }
  std::int64_t sequence_count() const { return sequence_count_; }
  const StateSource& forget() const { return forget_; }
  const StateSource& retain() const { return retain_; }
  /// "row 12 of the forget states (sequence 3)", for messages.
  std::string describe_row(std::int64_t row) const;

 private:
  const StateSource& forget_;
  const StateSource& retain_;
  std::vector<std::int64_t> sequences_;
  std::int64_t forget_sequences_ = 0;
  std::int64_t sequence_count_ = 0;
};

/// Rows of a pool: mask[i] is 1 for a row that belongs.
using RowMask = std::vector<std::uint8_t>;

RowMask forget_mask(const Pool& pool);
RowMask retain_mask(const Pool& pool);
std::vector<std::int64_t> masked_rows(const RowMask& mask, bool value);

/// A division of the pool into two parts as large as forget and retain, each with the same mix of
/// both: whole sequences drawn at random, forget's share of each set going to the part that the
/// mask marks. Depends on `draw` and the row counts only, so it is the same on all ranks.
RowMask random_division(const Pool& pool, std::uint64_t draw);

}  // namespace mrp::solver
