// Threads of the BLAS library that the solver's products and factorisations run on.
#pragma once

namespace mrp::solver {

/// Tells every BLAS that is loaded (OpenBLAS, MKL) to use `threads` threads in this process.
void set_threads(int threads);

}  // namespace mrp::solver
