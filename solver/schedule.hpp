// Many sites on few ranks: small problems side by side on sub-grids, big ones on the whole grid.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mrp::solver {

/// Size of one site's problem.
struct Problem {
  std::int64_t width = 0;
  std::int64_t rows = 0;  ///< forget + retain
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

}  // namespace mrp::solver
