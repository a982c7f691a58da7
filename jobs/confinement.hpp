// S and T of the subspace edit: which directions a trained change may use. The eigenproblems of all
// sites are solver's, dealt out to the ranks.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "dist/communicator.hpp"
#include "shard/train/trainable.hpp"

namespace mrp::jobs {

/// Who solves: ranks that hold the same problems, and the bytes that one of them may take.
struct Solvers {
  const dist::Communicator& ranks;
  std::uint64_t memory;
};

/// How many eigenvalues count for S or T of this width: all up to 2048, of wider ones an eighth;
/// what the others do to S is small.
std::int64_t confined_directions(std::int64_t width);

/// S of the subspace edit, soft form, of each of the second moments [width × width], any type: with
/// the moments scaled to mean eigenvalue 1 and C = V Λ Vᵀ, S = V diag(√(ε / (λ + ε))) Vᵀ,
/// ε = `softness`; of the largest eigenvalues, `confined_directions` many; the others are taken as
/// free. T likewise. Collective over the solvers, which all get the same result.
/// @throws NumericalError if moments are NaN or Inf or a problem cannot be solved.
std::vector<shard::Confinement> soft_confinements(const std::vector<torch::Tensor>& moments,
                                                  double softness, const Solvers& solvers);

/// S of the subspace edit, low form, of each pair of second moments: an orthonormal basis, fp32
/// [width × min(k, width)], of the k generalised eigenvectors of largest eigenvalue of
/// forget v = λ (retain + ridge I) v, both scaled to mean eigenvalue 1 and ridge = 1e-2: what tells
/// forget from retain best. Collective as above.
std::vector<torch::Tensor> low_subspaces(const std::vector<torch::Tensor>& forget,
                                         const std::vector<torch::Tensor>& retain, std::int64_t k,
                                         const Solvers& solvers);

/// Of each pair the basis V of low_subspaces and the patterns A = (retain + ridge I) V, each of
/// norm 1: I − A (VᵀA)⁻¹ Vᵀ leaves nothing that V tells apart and moves retain states least.
/// Collective as above.
std::vector<shard::Projector> low_projectors(const std::vector<torch::Tensor>& forget,
                                             const std::vector<torch::Tensor>& retain,
                                             std::int64_t k, const Solvers& solvers);

}  // namespace mrp::jobs
