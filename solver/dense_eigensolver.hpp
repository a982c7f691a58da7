// The largest eigenvalues of a symmetric block-cyclic matrix by tridiagonalisation: always exact,
// O(n³) whatever k is. By ELPA where it is at hand, else by LAPACK and ScaLAPACK.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "solver/eigensolver.hpp"

namespace mrp::solver {

/// Collective over the grid. The k largest; only the lower triangle of `a` is read.
/// @pre 0 < k ≤ n. @throws NumericalError naming routine and matrix.
EigenPairs dense_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name);

/// The same without vectors.
std::vector<double> dense_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name);

}  // namespace mrp::solver
