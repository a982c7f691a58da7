// Index arithmetic of the one-dimensional block-cyclic distribution, in 64 bits and without MPI.
//
// n = 10 indices in blocks of 2 over 3 processes:
//   global   0 1 | 2 3 | 4 5 | 6 7 | 8 9
//   process  0 0 | 1 1 | 2 2 | 0 0 | 1 1
//   local    0 1 | 0 1 | 0 1 | 2 3 | 2 3
// A matrix is distributed by its rows over the grid's rows and by its columns over the grid's
// columns.
#pragma once

#include <cstdint>

namespace mrp::solver {

/// How many of n indices `process` holds (ScaLAPACK's numroc with source process 0).
std::int64_t local_count(std::int64_t n, std::int64_t block, int process, int processes) noexcept;

/// The process that holds `global`.
int owner(std::int64_t global, std::int64_t block, int processes) noexcept;

/// Position of `global` on its owner.
std::int64_t to_local(std::int64_t global, std::int64_t block, int processes) noexcept;

/// Global index of position `local` on `process`.
std::int64_t to_global(std::int64_t local, std::int64_t block, int process, int processes) noexcept;

}  // namespace mrp::solver
