#include "shard/edit/orthonormal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/error.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

namespace {

constexpr double kOrthonormal = 1e-12;  ///< largest entry of Qᵀ Q − I
constexpr double kDependent = 1e-13;    ///< part of a column's length that is new
constexpr int kMaxRounds = 6;

/// Upper triangle of g [k × k] = Vᵀ V.
MRP_VECTOR_CLONES void gram(const double* v, std::int64_t rows, std::int64_t k, double* g) {
  std::fill(g, g + k * k, 0.0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const double* x = v + r * k;
    for (std::int64_t i = 0; i < k; ++i) {
      const double xi = x[i];
      double* gi = g + i * k;
      for (std::int64_t l = i; l < k; ++l) gi[l] += xi * x[l];
    }
  }
}

/// Rows of V times R⁻¹, R upper triangular.
MRP_VECTOR_CLONES void solve_rows(double* v, std::int64_t rows, std::int64_t k, const double* r) {
  for (std::int64_t row = 0; row < rows; ++row) {
    double* x = v + row * k;
    for (std::int64_t i = 0; i < k; ++i) {
      const double* ri = r + i * k;
      const double xi = x[i] / ri[i];
      x[i] = xi;
      for (std::int64_t l = i + 1; l < k; ++l) x[l] -= xi * ri[l];
    }
  }
}

/// In place: the upper triangle of g becomes R with Rᵀ R = g + shift · diag(g). False if that is
/// not positive definite.
bool cholesky(std::vector<double>& g, std::size_t k, double shift) {
  for (std::size_t i = 0; i < k; ++i) g[i * k + i] *= 1 + shift;
  for (std::size_t i = 0; i < k; ++i) {
    const double pivot = g[i * k + i];
    if (!(pivot > 0)) return false;
    const double root = std::sqrt(pivot);
    g[i * k + i] = root;
    for (std::size_t l = i + 1; l < k; ++l) g[i * k + l] /= root;
    for (std::size_t j = i + 1; j < k; ++j) {
      for (std::size_t l = j; l < k; ++l) g[j * k + l] -= g[i * k + j] * g[i * k + l];
    }
    for (std::size_t l = 0; l < i; ++l) g[i * k + l] = 0;
  }
  return true;
}

double distance_from_identity(const std::vector<double>& g, std::size_t k) {
  double worst = 0;
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t l = i; l < k; ++l) {
      worst = std::max(worst, std::abs(g[i * k + l] - (i == l ? 1.0 : 0.0)));
    }
  }
  return worst;
}

/// total ← r · total, both upper triangular.
void multiply_left(const std::vector<double>& r, std::vector<double>& total, std::size_t k) {
  for (std::size_t i = 0; i < k; ++i) {  // row i needs only rows >= i of the old total
    for (std::size_t l = i; l < k; ++l) {
      double sum = 0;
      for (std::size_t j = i; j <= l; ++j) sum += r[i * k + j] * total[j * k + l];
      total[i * k + l] = sum;
    }
  }
}

/// True if some column of V is, to rounding, a combination of those before it.
bool is_dependent(const std::vector<double>& r, std::size_t k) {
  for (std::size_t l = 0; l < k; ++l) {
    double length = 0;
    for (std::size_t i = 0; i <= l; ++i) length = std::hypot(length, r[i * k + l]);
    if (r[l * k + l] <= kDependent * length) return true;
  }
  return false;
}

}  // namespace

std::vector<double> orthonormalise(std::vector<double>& v, std::int64_t k,
                                   const std::string& what) {
  const auto n = static_cast<std::size_t>(k);
  const std::int64_t rows = std::ssize(v) / std::max<std::int64_t>(k, 1);
  std::vector<double> total(n * n, 0.0), g(n * n);
  for (std::size_t i = 0; i < n; ++i) total[i * n + i] = 1;
  for (int round = 0; round < kMaxRounds; ++round) {
    gram(v.data(), rows, k, g.data());
    if (distance_from_identity(g, n) <= kOrthonormal) {
      if (is_dependent(total, n)) break;
      return total;
    }
    std::vector<double> r = g;
    if (!cholesky(r, n, 0.0)) {
      // Nearly dependent columns: a shift above the rounding errors of g keeps the pivots positive;
      // the next rounds repair what it spoils.
      r = g;
      if (!cholesky(r, n, 1e-15 * static_cast<double>(rows + k) * static_cast<double>(k))) break;
    }
    solve_rows(v.data(), rows, k, r.data());
    multiply_left(r, total, n);
  }
  throw dist::NumericalError(fmt::format(
      "{}: the {} removed directions are linearly dependent; solve the site with fewer", what, k));
}

}  // namespace mrp::shard
