// How far a result is from what it should be.
#pragma once

#include "solver/tall.hpp"

namespace mrp::solver {

/// max |Bᵀ A − I|; infinity if an entry of A or B is not finite.
double biorthogonality_residual(const Tall& a, const Tall& b);

}  // namespace mrp::solver
