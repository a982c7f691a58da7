// Triangular systems with few right-hand sides.
#pragma once

#include <vector>

#include "solver/dist_matrix.hpp"

namespace mrp::solver {

/// Solves with the lower triangle L of a block-cyclic matrix, which it borrows. Substitution in
/// steps of 512 rows: the diagonal blocks are inverted once and held by every rank, the rest is
/// products that all ranks share. pdtrsm takes a step for every block of the distribution instead,
/// and leaves most ranks idle in each.
class LowerSolver {
 public:
  /// Collective over the grid. @pre L has no zero on its diagonal.
  explicit LowerSolver(const DistMatrix& l);

  /// Collective over the grid. op(L)⁻¹ b for b [n × m]; both complete on every rank.
  Tall solve(Op op, Tall b) const;

 private:
  const DistMatrix* l_;
  std::vector<Tall> inverses_;
};

}  // namespace mrp::solver
