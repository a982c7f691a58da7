// Where the solver gets hidden states from, without knowing what holds them.
#pragma once

#include <cstdint>
#include <span>

#include "dist/partition.hpp"

namespace mrp::solver {

/// A matrix of hidden states X [rows × width], read block by block. Reads are independent of other
/// ranks.
class StateSource {
 public:
  virtual ~StateSource() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t width() const = 0;
  /// The block as floats, row-major into out [rows.size() × columns.size()].
  virtual void read(dist::Range rows, dist::Range columns, std::span<float> out) const = 0;
  /// Sequence that each row belongs to, [rows]: rows of one sequence are not independent samples.
  virtual std::span<const std::int64_t> sequences() const = 0;
};

}  // namespace mrp::solver
