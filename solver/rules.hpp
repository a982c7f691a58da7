// The rules that need no inverse: leading eigenvectors of a combination of the two covariances.
#pragma once

#include <cstdint>
#include <vector>

#include "solver/dist_matrix.hpp"
#include "solver/subspace.hpp"

namespace mrp::solver {

/// Directions that a rule proposes.
struct Directions {
  std::vector<double> values;  ///< descending
  Tall kernel;                 ///< [width × k] spans what the projector removes
  Tall filters;                ///< gevp: V with Vᵀ kernel = I; else empty
  double noise = 0;  ///< a value at or below this is rounding, not a direction of the states
};

/// Collective over the grid. All rules but gevp and random on covariances C_f, C_r
/// [n × n] (both triangles) in whatever orthonormal coordinates; min(k, n) directions with an
/// orthonormal kernel [n × k].
Directions leading_directions(const DistMatrix& forget, const DistMatrix& retain,
                              const SubspaceOptions& options, std::int64_t k);

}  // namespace mrp::solver
