#include "solver/lower_solver.hpp"

#include <algorithm>
#include <utility>

#include "dist/error.hpp"
#include "solver/blas.hpp"
#include "solver/dense.hpp"

namespace mrp::solver {
namespace {

constexpr std::int64_t step = 512;

std::vector<dist::Range> steps(std::int64_t n) {
  std::vector<dist::Range> result;
  for (std::int64_t i = 0; i < n; i += step) result.push_back({i, std::min(i + step, n)});
  return result;
}

Tall diagonal_block(const DistMatrix& l, dist::Range range) {
  const std::vector<std::int64_t> indices = index_range(range.begin, range.size());
  return gather(select(l, indices, indices));
}

// Of the lower triangle; the upper one of the result is zero.
Tall inverse(const Tall& lower) {
  Tall result(lower.rows, lower.rows);
  for (std::int64_t i = 0; i < result.rows; ++i) result(i, i) = 1;
  const int n = static_cast<int>(lower.rows);
  const double alpha = 1;
  dtrsm_("L", "L", "N", "N", &n, &n, &alpha, lower.values.data(), &n, result.values.data(), &n, 1,
         1, 1, 1);
  return result;
}

Tall rows_of(const Tall& b, dist::Range rows) {
  Tall result(rows.size(), b.columns);
  for (std::int64_t j = 0; j < b.columns; ++j) {
    for (std::int64_t i = 0; i < result.rows; ++i) result(i, j) = b(rows.begin + i, j);
  }
  return result;
}

}  // namespace

LowerSolver::LowerSolver(const DistMatrix& l) : l_(&l) {
  for (const dist::Range range : steps(l.rows()))
    inverses_.push_back(inverse(diagonal_block(l, range)));
}

Tall LowerSolver::solve(Op op, Tall b) const {
  const std::int64_t n = l_->rows();
  MRP_EXPECT(b.rows == n);
  const auto ranges = steps(n);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const std::size_t at = op == Op::none ? i : ranges.size() - 1 - i;
    const dist::Range own = ranges[at];
    const Tall known = op == Op::none ? product(op, *l_, own, {0, own.begin}, b)
                                      : product(op, *l_, {own.end, n}, own, b);
    Tall rest = rows_of(b, own);
    for (std::size_t e = 0; e < rest.values.size(); ++e) rest.values[e] -= known.values[e];
    const Tall solved = op == Op::none ? multiply(inverses_[at], rest) : cross(inverses_[at], rest);
    for (std::int64_t j = 0; j < b.columns; ++j) {
      for (std::int64_t r = 0; r < own.size(); ++r) b(own.begin + r, j) = solved(r, j);
    }
  }
  return b;
}

}  // namespace mrp::solver
