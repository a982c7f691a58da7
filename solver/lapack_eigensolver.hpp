// The largest eigenvalues of a symmetric block-cyclic matrix by LAPACK's dsyevr on one rank, else
// by ScaLAPACK: pdsyevr, and pdsyevd when half of the pairs or more are wanted or pdsyevr fails.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "solver/eigensolver.hpp"

namespace mrp::solver {

/// Collective over the grid. The k largest; only the lower triangle of `a` is read.
/// @pre 0 < k ≤ n. @throws NumericalError naming routine and matrix.
EigenPairs lapack_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name);

/// The same without vectors.
std::vector<double> lapack_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name);

}  // namespace mrp::solver
