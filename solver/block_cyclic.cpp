#include "solver/block_cyclic.hpp"

#include <algorithm>

namespace mrp::solver {

std::int64_t local_count(std::int64_t n, std::int64_t block, int process, int processes) noexcept {
  const std::int64_t cycle = block * processes;
  const std::int64_t rest = n % cycle - block * process;  // what the last, incomplete cycle holds
  return n / cycle * block + std::clamp<std::int64_t>(rest, 0, block);
}

int owner(std::int64_t global, std::int64_t block, int processes) noexcept {
  return static_cast<int>(global / block % processes);
}

std::int64_t to_local(std::int64_t global, std::int64_t block, int processes) noexcept {
  return global / (block * processes) * block + global % block;
}

std::int64_t to_global(std::int64_t local, std::int64_t block, int process,
                       int processes) noexcept {
  return (local / block * processes + process) * block + local % block;
}

}  // namespace mrp::solver
