// How much of the removed directions a matrix holds: ‖W N‖, measured block by block.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "shard/edit/fold.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

/// The panel of one fold in the precision that a dtype asks for.
class FoldPanel {
 public:
  FoldPanel() = default;
  FoldPanel(std::span<const double> matrix, std::int64_t width, std::int64_t k, io::DType dtype);

  template <class Real>
  const Panel<Real>& get() const {
    if constexpr (std::is_same_v<Real, float>) {
      return single_;
    } else {
      return wide_;
    }
  }

 private:
  Panel<float> single_;
  Panel<double> wide_;
};

/// Calls work(Real{}) with the arithmetic for `dtype`: double for f32 tensors, else float.
template <class Work>
decltype(auto) with_real(io::DType dtype, Work&& work) {
  if (dtype == io::DType::f32) return work(double{});
  return work(float{});
}

/// ‖W N‖_F of a fold along the rows of W, or ‖Nᵀ W‖_F of one along its columns. W comes in blocks
/// of whole rows, so that one pass over a file serves both.
class ProjectionMeter {
 public:
  enum class Direction { rows, columns };

  /// `columns`: of W.
  ProjectionMeter(const FoldFactors& factors, Direction direction, std::int64_t columns,
                  io::DType dtype);

  /// Rows [first, first + block.rows) of W; each row once, `first` a multiple of kLanes.
  void add_rows(std::int64_t first, const MatrixBytes& block);
  double squared_norm() const;
  /// Nᵀ W, row-major [k × columns] (direction columns).
  std::vector<double> products() const;

 private:
  template <class Real>
  void add(std::int64_t first, const MatrixBytes& block);

  Direction direction_;
  std::int64_t k_;
  std::int64_t columns_;
  FoldPanel panel_;
  double row_total_ = 0;
  std::vector<Lanes<double>> sums_;  ///< columns: [columns / kLanes × k]; rows: [k]
};

}  // namespace mrp::shard
