#include "solver/moments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>
#include <vector>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "solver/dense.hpp"

namespace mrp::solver {
namespace {

// Products are fp64 although states are fp32 or bf16. Measured on bf16-valued states of width 512:
// fp32 products over chunks of 4096, 1024, 256 and 64 rows, summed in fp64, moved the pencil's
// leading eigenvalues by 8e-7, 7e-7, 4e-7 and 6e-8 relative, and fp64 is the only one below the
// 1e-8 that the solver promises.
constexpr std::int64_t most_depth = 4096;         // rows or columns of one chunk
constexpr std::int64_t chunk_elements = 1 << 23;  // of one float buffer: 32 MB
// Of a Gram matrix: 128 MB. Files hold states in chunks of rows as wide as what one rank wrote, and
// reading some columns of all rows reads all of these chunks anew.
constexpr std::int64_t gram_chunk_elements = 1 << 25;
constexpr std::int64_t panel_columns = 256;  // the lower triangle is computed panel by panel

// A matrix index is a state column in a covariance and a state row in a Gram matrix; the
// summed-over index, `depth`, is the other one.
enum class Matrix { covariance, gram };

std::int64_t chunk_depth(std::int64_t other, std::int64_t elements = chunk_elements) {
  return std::clamp<std::int64_t>(elements / std::max<std::int64_t>(1, other), 16, most_depth);
}

// The contiguous ranges to read so that all of two ascending index lists is covered. Everything in
// one piece when more than half is needed, as on small grids: long reads are cheaper than skipping.
std::vector<dist::Range> cover(const std::vector<std::int64_t>& first,
                               const std::vector<std::int64_t>& second, std::int64_t total) {
  std::vector<std::int64_t> all;
  std::set_union(first.begin(), first.end(), second.begin(), second.end(), std::back_inserter(all));
  if (2 * static_cast<std::int64_t>(all.size()) > total) return {{0, total}};
  std::vector<dist::Range> ranges;
  for (const std::int64_t index : all) {
    if (ranges.empty() || ranges.back().end != index) ranges.push_back({index, index});
    ranges.back().end = index + 1;
  }
  return ranges;
}

// One factor of the product: the slice of the states at this rank's rows (or columns) of the
// matrix.
struct Factor {
  std::vector<std::int64_t> indices;  // global, ascending
  std::vector<double> values;  // column-major: covariance [index × depth], gram [depth × index]

  // Copies what `range` holds of this factor out of a float block that was read for it.
  void pack(Matrix kind, dist::Range range, std::int64_t depth,
            const std::vector<std::int64_t>& kept, const std::vector<float>& block) {
    const auto begin = std::lower_bound(indices.begin(), indices.end(), range.begin);
    const auto end = std::lower_bound(begin, indices.end(), range.end);
    const auto count = indices.size();
    const auto first = static_cast<std::size_t>(begin - indices.begin());
    const auto last = static_cast<std::size_t>(end - indices.begin());
    if (kind == Matrix::covariance) {
      for (std::size_t d = 0; d < kept.size(); ++d) {
        const float* source = block.data() + kept[d] * range.size();
        double* target = values.data() + d * count;
        for (std::size_t i = first; i < last; ++i) target[i] = source[indices[i] - range.begin];
      }
    } else {
      for (std::size_t i = first; i < last; ++i) {
        const float* source = block.data() + (indices[i] - range.begin) * depth;
        std::copy_n(source, depth, values.begin() + static_cast<std::ptrdiff_t>(i) * depth);
      }
    }
  }
};

class Accumulator {
 public:
  Accumulator(const Pool& pool, Matrix kind, DistMatrix& result)
      : pool_(pool), kind_(kind), result_(result) {
    left_.indices = result.row_indices();
    right_.indices = result.column_indices();
    ranges_ = cover(left_.indices, right_.indices, result.rows());
  }

  // Adds the chunk's products. `kept`: the positions within `depth` that take part.
  void add(dist::Range depth, const std::vector<std::int64_t>& kept) {
    const auto taken = static_cast<std::int64_t>(kept.size());
    left_.values.resize(left_.indices.size() * kept.size());
    const bool shared = left_.indices == right_.indices;
    if (!shared) right_.values.resize(right_.indices.size() * kept.size());
    for (const dist::Range range : ranges_) {
      read(depth, range);
      left_.pack(kind_, range, depth.size(), kept, block_);
      if (!shared) right_.pack(kind_, range, depth.size(), kept, block_);
    }
    multiply(shared ? left_ : right_, taken);
  }

 private:
  void read(dist::Range depth, dist::Range range) {
    block_.resize(static_cast<std::size_t>(depth.size() * range.size()));
    const dist::Range rows = kind_ == Matrix::covariance ? depth : range;
    const dist::Range columns = kind_ == Matrix::covariance ? range : depth;
    pool_.read(rows, columns, block_);
    const auto stride = static_cast<std::size_t>(columns.size());
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto start = static_cast<std::size_t>(row - rows.begin) * stride;
      const std::span<const float> values(block_.data() + start, stride);
      if (std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }))
        continue;
      throw dist::NumericalError(
          fmt::format("{} holds NaN or Inf: capture again in a wider type, or "
                      "drop the sequence",
                      pool_.describe_row(row)));
    }
  }

  // Only blocks on or below the diagonal: panels of columns from their first row that can matter.
  void multiply(const Factor& right, std::int64_t depth) {
    const auto rows = static_cast<std::int64_t>(left_.indices.size());
    const auto columns = static_cast<std::int64_t>(right.indices.size());
    const bool covariance = kind_ == Matrix::covariance;
    for (std::int64_t j = 0; j < columns; j += panel_columns) {
      const std::int64_t width = std::min(panel_columns, columns - j);
      const auto from = std::lower_bound(left_.indices.begin(), left_.indices.end(),
                                         right.indices[static_cast<std::size_t>(j)]);
      const std::int64_t i = from - left_.indices.begin();
      if (i == rows) continue;
      gemm(covariance ? Op::none : Op::transposed, covariance ? Op::transposed : Op::none, rows - i,
           width, depth, 1, left_.values.data() + (covariance ? i : i * depth),
           covariance ? rows : depth, right.values.data() + (covariance ? j : j * depth),
           covariance ? columns : depth, 1, &result_.at(i, j), result_.local_rows());
    }
  }

  const Pool& pool_;
  Matrix kind_;
  DistMatrix& result_;
  Factor left_, right_;
  std::vector<dist::Range> ranges_;
  std::vector<float> block_;
};

// Runs `work(rows, block)` over this rank's share of the rows, read in chunks.
template <class Work>
void for_each_chunk(const dist::Communicator& comm, const StateSource& states, const Work& work) {
  dist::agree(comm, [&] {
    const dist::Range mine = dist::slice(states.rows(), comm.size(), comm.rank());
    const std::int64_t step = chunk_depth(states.width());
    std::vector<float> block;
    std::vector<double> wide;
    for (std::int64_t begin = mine.begin; begin < mine.end; begin += step) {
      const dist::Range rows{begin, std::min(begin + step, mine.end)};
      block.resize(static_cast<std::size_t>(rows.size() * states.width()));
      states.read(rows, {0, states.width()}, block);
      wide.assign(block.begin(), block.end());
      work(rows, wide.data());
    }
  });
}

}  // namespace

DistMatrix covariance_sum(const BlacsGrid& grid, const Pool& pool, const RowMask& mask,
                          std::int64_t block) {
  DistMatrix result(grid, pool.width(), pool.width(), block);
  dist::agree(grid.comm(), [&] {
    Accumulator accumulator(pool, Matrix::covariance, result);
    const std::int64_t step = chunk_depth(pool.width());
    std::vector<std::int64_t> kept;
    for (std::int64_t begin = 0; begin < pool.rows(); begin += step) {
      const dist::Range rows{begin, std::min(begin + step, pool.rows())};
      kept.clear();
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        if (mask[static_cast<std::size_t>(row)] != 0) kept.push_back(row - rows.begin);
      }
      if (!kept.empty()) accumulator.add(rows, kept);
    }
  });
  mirror_lower(result);
  return result;
}

DistMatrix gram(const BlacsGrid& grid, const Pool& pool, std::int64_t block) {
  DistMatrix result(grid, pool.rows(), pool.rows(), block);
  dist::agree(grid.comm(), [&] {
    Accumulator accumulator(pool, Matrix::gram, result);
    const std::int64_t step = chunk_depth(pool.rows(), gram_chunk_elements);
    for (std::int64_t begin = 0; begin < pool.width(); begin += step) {
      const dist::Range columns{begin, std::min(begin + step, pool.width())};
      accumulator.add(columns, index_range(0, columns.size()));
    }
  });
  mirror_lower(result);
  return result;
}

Tall states_times(const dist::Communicator& comm, const StateSource& states, const Tall& q) {
  MRP_EXPECT(q.rows == states.width());
  Tall result(states.rows(), q.columns);
  for_each_chunk(comm, states, [&](dist::Range rows, const double* block) {
    gemm(Op::transposed, Op::none, rows.size(), q.columns, q.rows, 1, block, q.rows,
         q.values.data(), q.rows, 0, result.values.data() + rows.begin, result.rows);
  });
  comm.all_reduce(std::span<double>(result.values));
  return result;
}

Tall transposed_states_times(const dist::Communicator& comm, const StateSource& states,
                             const Tall& u) {
  MRP_EXPECT(u.rows == states.rows());
  Tall result(states.width(), u.columns);
  for_each_chunk(comm, states, [&](dist::Range rows, const double* block) {
    gemm(Op::none, Op::none, result.rows, u.columns, rows.size(), 1, block, result.rows,
         u.values.data() + rows.begin, u.rows, 1, result.values.data(), result.rows);
  });
  comm.all_reduce(std::span<double>(result.values));
  return result;
}

}  // namespace mrp::solver
