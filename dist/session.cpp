#include "dist/session.hpp"

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "dist/error.hpp"
#include "dist/thread_budget.hpp"

namespace mrp::dist {
namespace {

bool mpi_is_up() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  int finalized = 0;
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

[[noreturn]] void end_job(int exit_code) {
  std::fflush(nullptr);
  if (mpi_is_up()) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace

Session::Session(int& argc, char**& argv) {
  detail::release_default_binding();
  int provided = MPI_THREAD_SINGLE;
  MRP_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided));
  MRP_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  MRP_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
  if (provided < MPI_THREAD_SERIALIZED) {
    throw ResourceError(
        "this MPI library has no MPI_THREAD_SERIALIZED: use one built with threads");
  }
  threads_ = detail::thread_budget_of_rank();
  const std::string threads = std::to_string(threads_);
  setenv("OMP_NUM_THREADS", threads.c_str(), 1);
  setenv("OPENBLAS_NUM_THREADS", threads.c_str(), 1);
}

Session::~Session() {
  // While an exception leaves main, the other ranks may be in any collective: MPI_Finalize would
  // wait for them. Whoever catches it calls abort_job.
  if (std::uncaught_exceptions() > 0) return;
  if (mpi_is_up()) MPI_Finalize();
}

void abort_job(const char* message, int exit_code) {
  // A second thread that fails while the first one ends the job adds nothing.
  static std::atomic_flag printed;
  if (!printed.test_and_set()) std::fprintf(stderr, "mrp: error: %s\n", message);
  end_job(exit_code);
}

void abort_job(const std::exception_ptr& failure) {
  const Failure described = describe(failure);
  if (!described.reporter && mpi_is_up()) {
    // The rank that prints ends this one; should it be gone, this one ends the job itself.
    std::this_thread::sleep_for(std::chrono::seconds(10));
    end_job(static_cast<int>(described.code));
  }
  abort_job(described.message.c_str(), static_cast<int>(described.code));
}

}  // namespace mrp::dist
