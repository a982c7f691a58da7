// MPI's lifetime and the thread budget of a rank.
#pragma once

#include <exception>

namespace mrp::dist {

/// One per process, first in main, destroyed last. Initialises MPI (MPI_THREAD_SERIALIZED) and sets
/// the thread budget: an even share of the cores that the ranks of this node may use, at least 1;
/// MRP_THREADS overrides. The binding that mpirun applies to small jobs unasked is undone first.
/// The budget is exported as OMP_NUM_THREADS and OPENBLAS_NUM_THREADS for libraries that start
/// later; LibTorch and OpenBLAS, which are loaded already, are told again by shard and solver.
class Session {
 public:
  /// Collective over the job. @throws UsageError for a bad MRP_THREADS.
  Session(int& argc, char**& argv);
  /// Collective over the job, unless an exception is in flight: then MPI is left for abort_job.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int threads() const noexcept { return threads_; }

 private:
  int threads_ = 1;
};

/// Prints "mrp: error: `message`" to stderr and ends the whole job at once with `exit_code`. Not
/// collective: any rank may call it, before, during and after the Session.
[[noreturn]] void abort_job(const char* message, int exit_code);

/// The same for an exception that escaped. One that all ranks agreed on (dist/agree.hpp) is printed
/// by one of them. @pre `failure` is not null.
[[noreturn]] void abort_job(const std::exception_ptr& failure);

}  // namespace mrp::dist
