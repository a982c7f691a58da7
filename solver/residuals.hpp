// How far a result is from what it should be.
#pragma once

#include <vector>

#include "solver/dist_matrix.hpp"

namespace mrp::solver {

/// Collective over the grid. The larger of max |A Z x − Z Λ x| / max |A| and max |Zᵀ Z x − x| for
/// eight random x of independent standard normal numbers: costs n² and finds any vector that is
/// wrong. Both triangles of `a` are read. Column i of Z, `vectors`, belongs to values[i].
double eigen_residual(const DistMatrix& a, const std::vector<double>& values,
                      const DistMatrix& vectors);

/// max |Bᵀ A − I|; infinity if an entry of A or B is not finite.
double biorthogonality_residual(const Tall& a, const Tall& b);

}  // namespace mrp::solver
