#include "solver/residuals.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "solver/dense.hpp"

namespace mrp::solver {
namespace {

// Over all ranks. NaN counts as infinite.
double largest_entry(const DistMatrix& a) {
  double largest = 0;
  const std::int64_t count = a.local_rows() * a.local_columns();
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = std::abs(a.data()[i]);
    largest = std::max(largest, std::isnan(x) ? std::numeric_limits<double>::infinity() : x);
  }
  return a.grid().comm().all_reduce(largest, dist::ReduceOp::max);
}

}  // namespace

double eigen_residual(DistMatrix a, const std::vector<double>& values, const DistMatrix& vectors) {
  mirror_lower(a);
  DistMatrix residual = vectors;
  const auto columns = residual.column_indices();
  for (std::int64_t j = 0; j < residual.local_columns(); ++j) {
    const auto column = static_cast<std::size_t>(columns[static_cast<std::size_t>(j)]);
    for (std::int64_t i = 0; i < residual.local_rows(); ++i) residual.at(i, j) *= values[column];
  }
  multiply(Op::none, Op::none, 1, a, vectors, -1, residual);
  DistMatrix unit(a.grid(), vectors.columns(), vectors.columns(), a.block());
  multiply(Op::transposed, Op::none, 1, vectors, vectors, 0, unit);
  shift_diagonal(unit, -1);
  const double size = largest_entry(a);
  return std::max(largest_entry(residual) / (size > 0 ? size : 1), largest_entry(unit));
}

double biorthogonality_residual(const Tall& a, const Tall& b) {
  const auto finite = [](double x) { return std::isfinite(x); };
  if (!std::all_of(a.values.begin(), a.values.end(), finite) ||
      !std::all_of(b.values.begin(), b.values.end(), finite)) {
    return std::numeric_limits<double>::infinity();
  }
  const Tall m = cross(b, a);
  double worst = 0;
  for (std::int64_t j = 0; j < m.columns; ++j) {
    for (std::int64_t i = 0; i < m.rows; ++i) {
      worst = std::max(worst, std::abs(m(i, j) - (i == j ? 1.0 : 0.0)));
    }
  }
  return worst;
}

}  // namespace mrp::solver
