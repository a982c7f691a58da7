#include "solver/few_pairs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/log.hpp"

namespace mrp::solver {
namespace {

double orthogonality_residual(const Tall& v) {
  const Tall unit = cross(v, v);
  double worst = 0;
  for (std::int64_t j = 0; j < unit.columns; ++j) {
    for (std::int64_t i = 0; i < unit.rows; ++i)
      worst = std::max(worst, std::abs(unit(i, j) - (i == j ? 1.0 : 0.0)));
  }
  return worst;
}

// max ‖A v − λ v‖ / ‖A‖, with the largest |λ| and ‖A v‖ for ‖A‖.
double relative_residual(const SymmetricOperator& a, const KrylovPairs& pairs) {
  const Tall images = a(pairs.vectors);
  double worst = 0, norm = 0;
  for (std::int64_t j = 0; j < images.columns; ++j) {
    const double value = pairs.values[static_cast<std::size_t>(j)];
    double difference = 0, size = 0;
    for (std::int64_t i = 0; i < images.rows; ++i) {
      difference += std::pow(images(i, j) - value * pairs.vectors(i, j), 2);
      size += std::pow(images(i, j), 2);
    }
    worst = std::max(worst, std::sqrt(difference));
    norm = std::max({norm, std::abs(value), std::sqrt(size)});
  }
  return norm > 0 ? worst / norm : worst;
}

}  // namespace

// Measured (tests/bench/solver): below, tridiagonalisation is as fast.
bool are_few(std::int64_t n, std::int64_t k) {
  return n >= 1536 && 16 * k <= n;
}

std::optional<KrylovPairs> few_eigenpairs(const dist::Communicator& comm,
                                          const SymmetricOperator& a, std::int64_t n,
                                          std::int64_t k, std::string_view name) {
  if (!are_few(n, k)) return {};
  auto pairs = krylov_pairs(comm, a, n, k);
  if (pairs) {
    const bool good =
        relative_residual(a, *pairs) <= 1e-9 && orthogonality_residual(pairs->vectors) <= 1e-10;
    if (comm.all_reduce(static_cast<int>(good), dist::ReduceOp::min) != 0) return pairs;
  }
  dist::log::info(fmt::format(
      "{} pairs of the {} (n = {}) did not converge quickly: tridiagonalising it", k, name, n));
  return {};
}

}  // namespace mrp::solver
