// Matrices and pencils of real size whose eigenvalues are known.
#pragma once

#include <optional>
#include <string>

#include "solver/dist_matrix.hpp"

namespace mrp::bench {

struct Problem {
  solver::DistMatrix c;                 ///< C of C v = λ v or C v = λ B v, both triangles
  std::optional<solver::DistMatrix> b;  ///< symmetric positive definite, both triangles
};

/// Collective over the grid. Spectra: `power`, λ_i = 1/i; `planted`, the same with 16 values from
/// 0.5 to 2 in place of the last; `cluster`, the same with 12 values around the k-th that differ by
/// 1e-8 of themselves. The pencil's B has eigenvalues 1/i + 0.01 · mean.
/// @throws InputError for another spectrum.
Problem make_problem(const solver::BlacsGrid& grid, const std::string& spectrum, std::int64_t n,
                     std::int64_t k, bool pencil);

}  // namespace mrp::bench
