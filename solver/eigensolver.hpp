// The largest eigenvalues of a symmetric block-cyclic matrix.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "solver/dist_matrix.hpp"

namespace mrp::solver {

struct EigenPairs {
  std::vector<double> values;  ///< descending
  DistMatrix vectors;          ///< [n × k], column i belongs to values[i], orthonormal
};

/// Collective over the grid. The k largest; both triangles of `a` are read. Few of many by
/// krylov.hpp, whose result is checked against `a`; all else, and what it does not solve, by
/// dense_eigensolver.hpp.
/// @pre 0 < k ≤ n. @throws NumericalError naming routine and matrix.
EigenPairs top_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name);

/// The same without vectors.
std::vector<double> top_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name);

}  // namespace mrp::solver
