// How far a result is from what it should be.
#pragma once

#include <vector>

#include "solver/dist_matrix.hpp"

namespace mrp::solver {

/// Collective over the grid. The larger of max |A Z − Z Λ| / max |A| and max |Zᵀ Z − I|; only the
/// lower triangle of `a` is read. Column i of `vectors` belongs to values[i].
double eigen_residual(DistMatrix a, const std::vector<double>& values, const DistMatrix& vectors);

/// max |Bᵀ A − I|; infinity if an entry of A or B is not finite.
double biorthogonality_residual(const Tall& a, const Tall& b);

}  // namespace mrp::solver
