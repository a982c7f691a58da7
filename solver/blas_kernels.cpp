#include "solver/blas_kernels.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

// Weak: null unless OpenBLAS is loaded.
extern "C" [[gnu::weak]] char* openblas_get_corename();

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

void choose_blas_kernels(char** arguments) {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (openblas_get_corename == nullptr || std::getenv(kVariable) != nullptr) return;
  const char* better = better_blas_kernels(openblas_get_corename());
  if (better == nullptr) return;
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return;
  setenv(kVariable, better, 1);
  execv(program.c_str(), arguments);  // returns only if it failed: then the slow kernels serve
}

}  // namespace mrp::solver
