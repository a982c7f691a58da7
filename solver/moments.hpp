// Second moments of hidden states, formed where they will lie: no communication but for one
// mirroring.
//
// The block (I, J) that a rank of the grid holds is a product of two slices of the states:
//   covariance sums  C[I, J] = Σ over row chunks r      X[r, I]ᵀ X[r, J]
//   Gram matrices    G[I, J] = Σ over column chunks c   X[I, c] X[J, c]ᵀ
// so both are one kernel with the roles of rows and columns exchanged.
#pragma once

#include <cstdint>

#include "solver/dist_matrix.hpp"
#include "solver/pool.hpp"

namespace mrp::solver {

/// Collective over the grid. Xᵀ X [width × width] over the rows that the mask marks.
/// @throws NumericalError if one of them holds NaN or Inf, naming it.
DistMatrix covariance_sum(const BlacsGrid& grid, const Pool& pool, const RowMask& mask,
                          std::int64_t block);

/// Collective over the grid. X Xᵀ [rows × rows] over all rows of the pool. Throws as above.
DistMatrix gram(const BlacsGrid& grid, const Pool& pool, std::int64_t block);

/// Collective over `comm`. X q [rows × k], complete on every rank.
Tall states_times(const dist::Communicator& comm, const StateSource& states, const Tall& q);

/// Collective over `comm`. Xᵀ u [width × k], complete on every rank.
Tall transposed_states_times(const dist::Communicator& comm, const StateSource& states,
                             const Tall& u);

}  // namespace mrp::solver
