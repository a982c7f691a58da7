// The edits of one tensor, applied to its blocks in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "io/safetensors.hpp"
#include "io/subspace_store.hpp"
#include "shard/edit/edit_plan.hpp"
#include "shard/edit/leak.hpp"
#include "shard/edit/rounding.hpp"

namespace mrp::shard {

/// Rows and columns of an edited tensor; a bias is one row.
struct MatrixShape {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};
MatrixShape matrix_shape(const io::TensorInfo& info);

/// ‖W N‖² along rows and columns (W with its trained change), 0 where nothing is folded.
struct SquaredNorms {
  double rows = 0;
  double columns = 0;
};

/// Blocks are those of the cut that `by_columns` says, and carry their trained change. What becomes
/// of a row or column depends on nothing but its tile of kLanes, so that any cut at multiples of
/// kLanes gives the same bytes.
class TensorFold {
 public:
  TensorFold(const io::TensorInfo& info, const TensorEdit& edit, const io::SubspaceFile& subspaces,
             Rounding rounding);

  bool by_columns() const { return !row_ && column_; }
  /// A fold on both sides must see the whole original tensor (`observe`, blocks of rows) before
  /// `fold`.
  bool needs_observation() const { return row_ && column_; }
  void observe(std::int64_t first_row, const MatrixBytes& block);

  /// Replaces a block by its edited and rounded values. Rows or columns [first, ...) of the tensor,
  /// by the way it is cut. Returns the norms of what was removed; the norm along the columns of a
  /// tensor folded on both sides comes with its first block.
  /// @throws NumericalError naming tensor and row: NaN or Inf in the block, or a result that the
  /// type cannot hold.
  SquaredNorms fold(std::int64_t first, const MatrixBytes& block);

 private:
  struct Side {
    FoldFactors factors;
    FoldPanel n, m;
  };
  template <class Real>
  double fold_tiles(std::int64_t first, const MatrixBytes& block);
  template <class Real>
  void subtract_columns(std::int64_t row, std::int64_t used, Tile<Real>& tile) const;
  /// Vectors [first, …) of the tensor, with a trained change in them or not.
  void round(std::int64_t first, bool changed, Tile<float>& tile,
             std::span<const Lanes<double>> removed);
  void finish_observation();
  [[noreturn]] void report(std::int64_t first, const MatrixBytes& block) const;

  std::string name_;
  io::DType dtype_;
  MatrixShape shape_;
  std::optional<Side> row_, column_;
  Rounding rounding_;
  std::optional<ErrorFeedback> feedback_;
  std::uint32_t seed_ = 0;                   ///< of random rounding
  std::optional<ProjectionMeter> observed_;  ///< Nᵀ W of the column fold
  FoldPanel column_products_;                ///< (Nᵀ W P)ᵀ [columns × k]
  double column_norm_ = 0;
};

/// The meters for the leak of an edited tensor, fed with blocks of rows in any order.
class LeakMeter {
 public:
  LeakMeter(const io::TensorInfo& info, const TensorEdit& edit, const io::SubspaceFile& subspaces);
  void add_rows(std::int64_t first, const MatrixBytes& block);
  SquaredNorms norms() const;

 private:
  std::optional<ProjectionMeter> rows_, columns_;
};

/// The larger of the two sides' ‖W′ N‖ / ‖W N‖; 0 where there was nothing to remove.
double leak(const SquaredNorms& before, const SquaredNorms& after);

}  // namespace mrp::shard
