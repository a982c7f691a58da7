// MPI's lifetime and the thread budget of a rank.
#pragma once

namespace mrp::dist {

/// One per process, first in main, destroyed last. Initialises MPI (MPI_THREAD_SERIALIZED) and sets the
/// thread budget: cores that this process may use / ranks on this node (at least 1; MRP_THREADS
/// overrides). The budget is exported as OMP_NUM_THREADS and OPENBLAS_NUM_THREADS, which libraries
/// read when they start; LibTorch and OpenBLAS are told again by shard and solver.
class Session {
 public:
  Session(int& argc, char**& argv);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int threads() const noexcept { return threads_; }

 private:
  int threads_ = 1;
};

/// Prints `message` once to stderr and ends the whole job at once with `exit_code`, from any rank.
[[noreturn]] void abort_job(const char* message, int exit_code);

}  // namespace mrp::dist
