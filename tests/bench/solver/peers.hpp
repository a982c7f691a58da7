// pdsyevd alone, called as its manual says.
#pragma once

#include <cstdint>

#include "solver/eigensolver.hpp"

namespace mrp::bench {

/// Collective over the grid. The k largest pairs of a symmetric matrix, which is destroyed; all
/// pairs are computed, there is no other way.
/// @throws NumericalError if the routine reports a failure.
solver::EigenPairs pdsyevd(solver::DistMatrix& a, std::int64_t k);

}  // namespace mrp::bench
