// The largest eigenvalues of a symmetric block-cyclic matrix by tridiagonalisation: always exact,
// O(n³) whatever k is.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "solver/eigensolver.hpp"

namespace mrp::solver {

/// Collective over the grid. The k largest; only the lower triangle of `a` is read. LAPACK's dsyevr
/// on one rank; else pdsyevr, and pdsyevd when half of the pairs or more are wanted or pdsyevr
/// fails.
/// @pre 0 < k ≤ n. @throws NumericalError naming routine and matrix.
EigenPairs dense_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name);

/// The same without vectors.
std::vector<double> dense_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name);

}  // namespace mrp::solver
