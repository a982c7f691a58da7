// A real matrix spread block-cyclically over a BLACS grid.
#pragma once

#include <cstdint>
#include <vector>

#include "solver/blacs_grid.hpp"
#include "solver/tall.hpp"

namespace mrp::solver {

/// ScaLAPACK's array descriptor with its fields named; `data()` is what the library wants.
struct Descriptor {
  int type = 1;
  int context = -1;
  int rows = 0, columns = 0;
  int row_block = 1, column_block = 1;
  int row_source = 0, column_source = 0;
  int leading_dimension = 1;

  const int* data() const noexcept { return &type; }
};
static_assert(sizeof(Descriptor) == 9 * sizeof(int));

/// fp64, square blocks, first block on grid position (0, 0). The local part is column-major with
/// leading dimension max(1, local_rows()). Zero on construction. Does not own the grid.
class DistMatrix {
 public:
  /// Not collective. @throws ResourceError if the local part is more than 32-bit ScaLAPACK can
  /// address.
  DistMatrix(const BlacsGrid& grid, std::int64_t rows, std::int64_t columns, std::int64_t block);

  const BlacsGrid& grid() const noexcept { return *grid_; }
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t columns() const noexcept { return columns_; }
  std::int64_t block() const noexcept { return block_; }
  std::int64_t local_rows() const noexcept { return local_rows_; }
  std::int64_t local_columns() const noexcept { return local_columns_; }
  const Descriptor& descriptor() const noexcept { return descriptor_; }

  double* data() noexcept { return values_.data(); }
  const double* data() const noexcept { return values_.data(); }
  double& at(std::int64_t local_row, std::int64_t local_column) {
    return values_[static_cast<std::size_t>(local_column * local_rows_ + local_row)];
  }
  double at(std::int64_t local_row, std::int64_t local_column) const {
    return values_[static_cast<std::size_t>(local_column * local_rows_ + local_row)];
  }
  /// Global indices of the local rows and columns, ascending.
  std::vector<std::int64_t> row_indices() const;
  std::vector<std::int64_t> column_indices() const;

 private:
  const BlacsGrid* grid_;
  std::int64_t rows_, columns_, block_;
  std::int64_t local_rows_, local_columns_;
  Descriptor descriptor_;
  std::vector<double> values_;
};

/// Block size for n × n on the grid: 64 for speed, less when n is too small for every process to
/// get some.
std::int64_t choose_block(const BlacsGrid& grid, std::int64_t n);

/// Collective over the grid. The whole of `matrix` on every rank.
Tall gather(const DistMatrix& matrix);

/// Not collective. The local parts of a matrix that every rank holds.
DistMatrix scatter(const BlacsGrid& grid, const Tall& matrix, std::int64_t block);

/// Collective over the grid. result(i, j) = matrix(rows[i], columns[j]): sub-matrices, reversed or
/// dropped columns. The index lists must be the same on all ranks.
DistMatrix select(const DistMatrix& matrix, const std::vector<std::int64_t>& rows,
                  const std::vector<std::int64_t>& columns);
/// The same with all rows.
DistMatrix select_columns(const DistMatrix& matrix, const std::vector<std::int64_t>& columns);

/// `count` indices from `first` on.
std::vector<std::int64_t> index_range(std::int64_t first, std::int64_t count);

}  // namespace mrp::solver
