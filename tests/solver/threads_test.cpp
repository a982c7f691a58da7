#include "solver/threads.hpp"

#include <gtest/gtest.h>

#include "dist/error.hpp"

extern "C" [[gnu::weak]] int openblas_get_num_threads();

namespace mrp::solver {
namespace {

TEST(Threads, ReachTheLibrary) {
  if (openblas_get_num_threads == nullptr)
    GTEST_SKIP() << "the BLAS that is linked is not OpenBLAS";
  const int before = openblas_get_num_threads();
  set_threads(2);
  EXPECT_EQ(openblas_get_num_threads(), 2);
  set_threads(before);
  EXPECT_EQ(openblas_get_num_threads(), before);
  EXPECT_THROW(set_threads(0), dist::ContractError);
}

}  // namespace
}  // namespace mrp::solver
