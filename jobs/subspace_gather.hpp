// Subspaces found on different ranks, brought together on rank 0.
#pragma once

#include <cstddef>
#include <vector>

#include "dist/communicator.hpp"
#include "solver/subspace.hpp"

namespace mrp::jobs {

struct SolvedSite {
  std::size_t site = 0;  ///< index into the job's sites
  double seconds = 0;
  solver::Subspace subspace;
};

/// Collective over `comm`. All that the ranks solved, on rank 0, ordered by site; empty on other
/// ranks. Values arrive bit for bit.
std::vector<SolvedSite> gather(const std::vector<SolvedSite>& mine, const dist::Communicator& comm);

}  // namespace mrp::jobs
