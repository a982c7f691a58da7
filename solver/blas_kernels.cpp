#include "solver/blas_kernels.hpp"

#include <cstdlib>

// Weak: null unless an OpenBLAS with kernels for several processors is loaded.
extern "C" {
[[gnu::weak]] char* openblas_get_corename();
[[gnu::weak]] void gotoblas_dynamic_init();  // reads OPENBLAS_CORETYPE unless it has kernels
[[gnu::weak]] void gotoblas_dynamic_quit();  // forgets them
}

namespace mrp::solver {

const char* better_blas_kernels(std::string_view chosen) {
  if (chosen != "Prescott") return nullptr;
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return "SkylakeX";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
  return nullptr;
}

void choose_blas_kernels() {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (openblas_get_corename == nullptr || gotoblas_dynamic_init == nullptr ||
      gotoblas_dynamic_quit == nullptr || std::getenv(kVariable) != nullptr) {
    return;
  }
  const char* better = better_blas_kernels(openblas_get_corename());
  if (better == nullptr) return;
  setenv(kVariable, better, 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
}

}  // namespace mrp::solver
