// The kernels that the BLAS library runs on.
#pragma once

#include <string_view>

namespace mrp::solver {

/// OpenBLAS's name of kernels that suit the instructions of this processor, if `chosen` are those
/// that it falls back to; null if they are not, or if there is nothing better.
const char* better_blas_kernels(std::string_view chosen);

/// OpenBLAS knows processors by their model number; on one younger than itself it falls back to the
/// kernels of 2004, several times slower. Then this sets OPENBLAS_CORETYPE to better ones and lets
/// it choose again. Does nothing where that is set already, or with another library. Call it first
/// in main, while nothing computes.
void choose_blas_kernels();

}  // namespace mrp::solver
