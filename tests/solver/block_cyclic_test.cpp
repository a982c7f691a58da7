#include "solver/block_cyclic.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace mrp::solver {
namespace {

// Deals indices out one by one, as the definition says.
TEST(BlockCyclic, AgreesWithDealingOutOneByOne) {
  for (const int processes : {1, 2, 3, 5}) {
    for (const std::int64_t block : {1, 2, 3, 8}) {
      for (const std::int64_t n : {0, 1, 2, 7, 8, 9, 16, 31, 100}) {
        std::vector<std::int64_t> held(static_cast<std::size_t>(processes), 0);
        int process = 0;
        for (std::int64_t global = 0; global < n; ++global) {
          if (global > 0 && global % block == 0) process = (process + 1) % processes;
          auto& count = held[static_cast<std::size_t>(process)];
          ASSERT_EQ(owner(global, block, processes), process);
          ASSERT_EQ(to_local(global, block, processes), count);
          ASSERT_EQ(to_global(count, block, process, processes), global);
          ++count;
        }
        for (int p = 0; p < processes; ++p) {
          ASSERT_EQ(local_count(n, block, p, processes), held[static_cast<std::size_t>(p)])
              << n << " in blocks of " << block << " over " << processes;
        }
      }
    }
  }
}

TEST(BlockCyclic, CountsBeyond32Bits) {
  const std::int64_t n = (std::int64_t{1} << 40) + 5;
  EXPECT_EQ(local_count(n, 64, 0, 2) + local_count(n, 64, 1, 2), n);
  EXPECT_EQ(to_global(to_local(n - 1, 64, 3), 64, owner(n - 1, 64, 3), 3), n - 1);
}

}  // namespace
}  // namespace mrp::solver
