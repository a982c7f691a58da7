#include "solver/dist_matrix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>

#include "dist/checked_cast.hpp"
#include "solver/block_cyclic.hpp"

namespace mrp::solver {
namespace {

std::vector<std::int64_t> held_indices(std::int64_t count, std::int64_t block, int process,
                                       int processes) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    indices[static_cast<std::size_t>(i)] = to_global(i, block, process, processes);
  }
  return indices;
}

// One dimension of select(): which local source index serves which local target index.
struct Move {
  std::int64_t source;  // local on the sending process
  std::int64_t target;  // local on the receiving process
};

// moves[p]: what process `from` of the source dimension sends to process p of the target dimension,
// in ascending order of the target, so that sender and receiver list the same elements in the same
// order.
std::vector<std::vector<Move>> moves_from(const std::vector<std::int64_t>& wanted,
                                          std::int64_t block, int from, int processes) {
  std::vector<std::vector<Move>> moves(static_cast<std::size_t>(processes));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (owner(wanted[i], block, processes) != from) continue;
    const auto target = static_cast<std::int64_t>(i);
    moves[static_cast<std::size_t>(owner(target, block, processes))].push_back(
        {to_local(wanted[i], block, processes), to_local(target, block, processes)});
  }
  return moves;
}

}  // namespace

DistMatrix::DistMatrix(const BlacsGrid& grid, std::int64_t rows, std::int64_t columns,
                       std::int64_t block)
    : grid_(&grid),
      rows_(rows),
      columns_(columns),
      block_(block),
      local_rows_(local_count(rows, block, grid.row(), grid.p())),
      local_columns_(local_count(columns, block, grid.column(), grid.q())) {
  // The same decision on all ranks: the first process of each dimension holds the most.
  const std::int64_t most_rows = local_count(rows, block, 0, grid.p());
  const std::int64_t most_columns = local_count(columns, block, 0, grid.q());
  constexpr std::int64_t limit = std::numeric_limits<int>::max();
  if (std::max(rows, columns) > limit || (most_columns > 0 && most_rows > limit / most_columns)) {
    throw dist::ResourceError(fmt::format(
        "a {} x {} matrix on a {} x {} grid gives one rank {} elements, more than ScaLAPACK can "
        "address (2^31): use more ranks",
        rows, columns, grid.p(), grid.q(),
        static_cast<double>(most_rows) * static_cast<double>(most_columns)));
  }
  descriptor_ = {.context = grid.context(),
                 .rows = static_cast<int>(rows),
                 .columns = static_cast<int>(columns),
                 .row_block = dist::checked_cast<int>(block, "block"),
                 .column_block = dist::checked_cast<int>(block, "block"),
                 .leading_dimension = static_cast<int>(std::max<std::int64_t>(1, local_rows_))};
  // Never empty, so that data() is a pointer that Fortran accepts.
  values_.resize(static_cast<std::size_t>(std::max<std::int64_t>(1, local_rows_ * local_columns_)));
}

std::vector<std::int64_t> DistMatrix::row_indices() const {
  return held_indices(local_rows_, block_, grid_->row(), grid_->p());
}

std::vector<std::int64_t> DistMatrix::column_indices() const {
  return held_indices(local_columns_, block_, grid_->column(), grid_->q());
}

std::int64_t choose_block(const BlacsGrid& grid, std::int64_t n) {
  const std::int64_t most = std::max(grid.p(), grid.q());
  return std::clamp<std::int64_t>((n + most - 1) / most, 1, 64);
}

Tall gather(const DistMatrix& matrix) {
  Tall whole(matrix.rows(), matrix.columns());
  const auto rows = matrix.row_indices();
  const auto columns = matrix.column_indices();
  for (std::size_t j = 0; j < columns.size(); ++j) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      whole(rows[i], columns[j]) =
          matrix.at(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j));
    }
  }
  // Each element is non-zero on one rank only, so the sum is exact.
  matrix.grid().comm().all_reduce(std::span<double>(whole.values));
  return whole;
}

DistMatrix scatter(const BlacsGrid& grid, const Tall& matrix, std::int64_t block) {
  DistMatrix result(grid, matrix.rows, matrix.columns, block);
  const auto rows = result.row_indices();
  const auto columns = result.column_indices();
  for (std::size_t j = 0; j < columns.size(); ++j) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      result.at(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)) =
          matrix(rows[i], columns[j]);
    }
  }
  return result;
}

DistMatrix select(const DistMatrix& matrix, const std::vector<std::int64_t>& rows,
                  const std::vector<std::int64_t>& columns) {
  const BlacsGrid& grid = matrix.grid();
  const std::int64_t block = matrix.block();
  DistMatrix result(grid, static_cast<std::int64_t>(rows.size()),
                    static_cast<std::int64_t>(columns.size()), block);

  const auto row_moves = moves_from(rows, block, grid.row(), grid.p());
  const auto column_moves = moves_from(columns, block, grid.column(), grid.q());
  std::vector<std::vector<double>> send(static_cast<std::size_t>(grid.p() * grid.q()));
  for (std::size_t rank = 0; rank < send.size(); ++rank) {
    const auto& to_rows = row_moves[rank / static_cast<std::size_t>(grid.q())];
    const auto& to_columns = column_moves[rank % static_cast<std::size_t>(grid.q())];
    send[rank].reserve(to_rows.size() * to_columns.size());
    for (const Move& column : to_columns) {
      for (const Move& row : to_rows) send[rank].push_back(matrix.at(row.source, column.source));
    }
  }
  const auto received = grid.comm().all_to_all_v(send);

  for (int p = 0; p < grid.p(); ++p) {
    const auto from_rows =
        moves_from(rows, block, p, grid.p())[static_cast<std::size_t>(grid.row())];
    for (int q = 0; q < grid.q(); ++q) {
      const auto from_columns =
          moves_from(columns, block, q, grid.q())[static_cast<std::size_t>(grid.column())];
      const double* next = received[static_cast<std::size_t>(p * grid.q() + q)].data();
      for (const Move& column : from_columns) {
        for (const Move& row : from_rows) result.at(row.target, column.target) = *next++;
      }
    }
  }
  return result;
}

DistMatrix select_columns(const DistMatrix& matrix, const std::vector<std::int64_t>& columns) {
  return select(matrix, index_range(0, matrix.rows()), columns);
}

std::vector<std::int64_t> index_range(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

}  // namespace mrp::solver
