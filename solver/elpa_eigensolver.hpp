// The largest eigenvalues of a symmetric block-cyclic matrix by the two-stage method of ELPA
// (https://elpa.mpcdf.mpg.de), where the build found that library.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "solver/eigensolver.hpp"

namespace mrp::solver {

/// Collective over the grid. The k largest; both triangles of `a` are read. Empty without
/// ELPA, for a matrix of which a rank of the grid has no part, and when ELPA fails: others are
/// asked then. @pre 0 < k ≤ n.
std::optional<EigenPairs> elpa_eigenpairs(DistMatrix a, std::int64_t k);

/// The same without vectors.
std::optional<std::vector<double>> elpa_eigenvalues(DistMatrix a, std::int64_t k);

}  // namespace mrp::solver
