#include "solver/blas_kernels.hpp"

#include <gtest/gtest.h>

#include <string_view>

namespace mrp::solver {
namespace {

TEST(BlasKernelsTest, KernelsThatOpenBlasChoseForTheProcessorStay) {
  for (const std::string_view chosen : {"Haswell", "SkylakeX", "Cooperlake", "Zen", ""}) {
    EXPECT_EQ(better_blas_kernels(chosen), nullptr) << chosen;
  }
}

TEST(BlasKernelsTest, TheFallbackIsReplacedWhereTheProcessorCanMore) {
#if defined(__x86_64__)
  const char* better = better_blas_kernels("Prescott");
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    ASSERT_NE(better, nullptr);
    EXPECT_NE(std::string_view(better), "Prescott");
  } else {
    EXPECT_EQ(better, nullptr);
  }
#else
  EXPECT_EQ(better_blas_kernels("Prescott"), nullptr);
#endif
}

}  // namespace
}  // namespace mrp::solver
