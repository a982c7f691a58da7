#include "solver/dense_eigensolver.hpp"

#include <utility>

#include "solver/dense.hpp"
#include "solver/elpa_eigensolver.hpp"
#include "solver/lapack_eigensolver.hpp"
#include "solver/residuals.hpp"

namespace mrp::solver {
namespace {

// Measured (tests/bench/solver): below, LAPACK and ScaLAPACK are as fast.
bool large(const DistMatrix& a) {
  return a.rows() >= 3072;
}

}  // namespace

EigenPairs dense_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name) {
  constexpr double kTolerance = 1e-10;
  if (large(a)) {
    mirror_lower(a);
    auto pairs = elpa_eigenpairs(a, k);
    if (pairs && eigen_residual(a, pairs->values, pairs->vectors) < kTolerance) {
      return std::move(*pairs);
    }
  }
  return lapack_eigenpairs(std::move(a), k, name);
}

std::vector<double> dense_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name) {
  if (large(a)) {
    mirror_lower(a);
    if (auto values = elpa_eigenvalues(a, k)) return std::move(*values);
  }
  return lapack_eigenvalues(std::move(a), k, name);
}

}  // namespace mrp::solver
