// A few of the largest eigenpairs of a symmetric operator, by a restarted block Krylov method.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "dist/communicator.hpp"
#include "solver/tall.hpp"

namespace mrp::solver {

/// x [n × b] ↦ A x, A symmetric [n × n]; x and the result are complete on every rank. Collective.
using SymmetricOperator = std::function<Tall(const Tall& x)>;

struct KrylovPairs {
  std::vector<double> values;  ///< descending
  Tall vectors;                ///< [n × k], orthonormal
};

/// Collective over `comm`. The k largest eigenvalues of A with vectors, the same on all ranks;
/// ‖A v − λ v‖ ≤ max(1e-10 |λ|, 1e-13 ‖A‖) for each. Empty if that takes more than n/4 columns of
/// products (512 where n is small), or if A is not finite.
///
/// Ritz vectors of span{X, A X, A² X, …} for a random block X, fully orthogonalised; when the basis
/// is full, its leading Ritz vectors start the next one (Wu and Simon, SIAM J. Matrix Anal. 22,
/// 2000). A block finds at most as many copies of an eigenvalue as it has columns. Therefore the
/// first result that has converged is put to the test: a new random block joins the basis, and
/// after a quarter of the steps so far, enough for any vector that was missed to show, the k
/// largest must be what they were; else the iteration goes on.
/// @pre 0 < k ≤ n / 4 and n ≥ 256.
std::optional<KrylovPairs> krylov_pairs(const dist::Communicator& comm, const SymmetricOperator& a,
                                        std::int64_t n, std::int64_t k);

}  // namespace mrp::solver
