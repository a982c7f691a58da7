#include "solver/blas_kernels.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

extern "C" {
[[gnu::weak]] char* openblas_get_corename();
[[gnu::weak]] void gotoblas_dynamic_init();
[[gnu::weak]] void gotoblas_dynamic_quit();
double ddot_(const int* n, const double* x, const int* x_step, const double* y, const int* y_step);
}

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

TEST(BlasKernelsTest, OpenBlasLeavesTheFallbackWhileTheProgramRuns) {
  if (openblas_get_corename == nullptr || gotoblas_dynamic_init == nullptr) {
    GTEST_SKIP() << "another BLAS library, or an OpenBLAS for one processor alone";
  }
  setenv("OPENBLAS_CORETYPE", "Prescott", 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  ASSERT_EQ(std::string_view(openblas_get_corename()), "Prescott");
  choose_blas_kernels();  // what the user has set stays
  EXPECT_EQ(std::string_view(openblas_get_corename()), "Prescott");
  unsetenv("OPENBLAS_CORETYPE");
  const char* better = better_blas_kernels("Prescott");
  choose_blas_kernels();
  EXPECT_EQ(std::string_view(openblas_get_corename()), better == nullptr ? "Prescott" : better);
  const double x[] = {1, 2, 3}, y[] = {4, 5, 6};
  const int n = 3, step = 1;
  EXPECT_EQ(ddot_(&n, x, &step, y, &step), 32.0);
}

}  // namespace
}  // namespace mrp::solver
