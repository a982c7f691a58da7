// Many sites on few ranks: small problems side by side on sub-grids, big ones on the whole grid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "solver/blacs_grid.hpp"

namespace mrp::solver {

/// Size of one site's problem.
struct Problem {
  std::int64_t width = 0;
  std::int64_t rows = 0;    ///< forget + retain
  std::int64_t pairs = 64;  ///< of the pencil
  bool automatic = true;    ///< whether the dimension is, which takes random divisions
};

/// Estimated work of a problem on one rank, in floating-point operations.
double work(const Problem& problem);
/// Estimated memory of a problem on one rank, in bytes.
double memory(const Problem& problem);

/// assignment[i]: the rank that solves problem i alone, or −1 when all ranks solve it together.
/// Problems whose single-rank time would exceed the balanced share, or whose memory would exceed
/// `memory_limit` bytes, are solved together; the others go to the least loaded rank, largest
/// first. The same on all ranks.
std::vector<int> assign(std::span<const Problem> problems, int ranks, std::uint64_t memory_limit);

/// Collective over `comm`. Calls solve(i, grid) for each problem that `assignment` gives to this
/// rank, on a grid of it alone, then for each that all ranks solve together, on a grid of them all.
/// A rank that fails alone does not wait for the others: what it throws ends the job.
void solve_assigned(std::span<const int> assignment, const dist::Communicator& comm,
                    const std::function<void(std::size_t, const BlacsGrid&)>& solve);

}  // namespace mrp::solver
