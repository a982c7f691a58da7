#include "solver/threads.hpp"

#include "dist/error.hpp"

// Weak: null unless a loaded library defines them.
extern "C" {
[[gnu::weak]] void openblas_set_num_threads(int threads);
[[gnu::weak]] void MKL_Set_Num_Threads(int threads);
}

namespace mrp::solver {

void set_threads(int threads) {
  MRP_EXPECT(threads > 0);
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
  if (MKL_Set_Num_Threads != nullptr) MKL_Set_Num_Threads(threads);
}

}  // namespace mrp::solver
