// The symmetric pencil A v = λ B v with B positive definite, given by its Cholesky factor.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "solver/eigensolver.hpp"

namespace mrp::solver {

/// Collective over the grid. The k largest λ with vectors normalised to Vᵀ B V = I. `factor` holds
/// L of B = L Lᵀ in its lower triangle; A v = λ B v becomes L⁻¹ A L⁻ᵀ y = λ y with v = L⁻ᵀ y. Both
/// triangles of `a` are read.
EigenPairs top_pencil_pairs(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                            std::string_view name);

/// The same without vectors.
std::vector<double> top_pencil_values(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                                      std::string_view name);

}  // namespace mrp::solver
