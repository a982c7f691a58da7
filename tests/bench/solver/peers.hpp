// The public libraries' distributed eigensolvers, called as their manuals say.
#pragma once

#include <cstdint>

#include "solver/eigensolver.hpp"

namespace mrp::bench {

/// Collective over the grid. The k largest pairs of a symmetric matrix, which is destroyed; all
/// pairs are computed, there is no other way.
/// @throws NumericalError if the routine reports a failure.
solver::EigenPairs pdsyevd(solver::DistMatrix& a, std::int64_t k);
#ifdef MRP_WITH_ELPA
/// Collective over the grid. The k largest pairs; `a` is destroyed. Two-stage, with the AVX-512
/// kernel where the library has it.
/// @throws NumericalError if ELPA reports a failure.
solver::EigenPairs elpa(solver::DistMatrix& a, std::int64_t k);
#endif

}  // namespace mrp::bench
