// mrp: removes a topic from a large language model. One binary, a subcommand for each stage.
#include <malloc.h>

#include <exception>
#include <limits>

#include "dist/session.hpp"
#include "jobs/command_line.hpp"
#include "solver/blas_kernels.hpp"

namespace {

/// A pass through a layer frees what the next one takes again. The system would have to clear it in
/// between, which costs 5 % of a training step. Blocks above 32 MiB are still returned.
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

}  // namespace

int main(int argc, char** argv) {
  mrp::solver::choose_blas_kernels();
  try {
    keep_freed_memory();
    const mrp::dist::Session session(argc, argv);
    return mrp::jobs::run_command(argc, argv, session.threads());
  } catch (...) {
    mrp::dist::abort_job(std::current_exception());
  }
}
