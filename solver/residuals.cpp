#include "solver/residuals.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "solver/dense.hpp"
#include "solver/random.hpp"

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

// a − b, entry by entry. NaN counts as infinite.
double largest_difference(const Tall& a, const Tall& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    const double x = std::abs(a.values[i] - b.values[i]);
    largest = std::max(largest, std::isnan(x) ? std::numeric_limits<double>::infinity() : x);
  }
  return largest;
}

}  // namespace

double eigen_residual(const DistMatrix& a, const std::vector<double>& values,
                      const DistMatrix& vectors) {
  constexpr std::int64_t kProbes = 8;
  const Tall x = random_normal(vectors.columns(), kProbes, /*seed=*/1);
  Tall scaled = x;
  for (std::int64_t j = 0; j < scaled.columns; ++j) {
    for (std::int64_t i = 0; i < scaled.rows; ++i)
      scaled(i, j) *= values[static_cast<std::size_t>(i)];
  }
  const Tall combined = product(vectors, x);
  const double pairs = largest_difference(product(a, combined), product(vectors, scaled));
  const Tall back =
      product(Op::transposed, vectors, {0, vectors.rows()}, {0, vectors.columns()}, combined);
  const double size = largest_entry(a);
  return std::max(pairs / (size > 0 ? size : 1), largest_difference(back, x));
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
