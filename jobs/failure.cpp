#include "jobs/failure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "dist/error.hpp"
#include "dist/session.hpp"

namespace mrp::jobs {
namespace {

/// True if every rank of `comm` has called this before `patience` ran out.
bool all_arrive(const dist::Communicator& comm, std::chrono::milliseconds patience) {
  MPI_Request request = MPI_REQUEST_NULL;
  MRP_MPI(MPI_Ibarrier(comm.get(), &request));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    int done = 0;
    MRP_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done != 0) return true;
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

/// Names from files and job files may hold control characters; a terminal should not obey them.
std::string printable(std::string line) {
  std::replace_if(
      line.begin(), line.end(),
      [](char c) { return std::iscntrl(static_cast<unsigned char>(c)) != 0; }, ' ');
  return line;
}

}  // namespace

int end_after_failure(const dist::Communicator& comm, const std::exception_ptr& failure,
                      std::chrono::milliseconds patience) {
  // Ranks that failed each for itself give up one after the other, so that only one of them prints.
  const auto turn = std::chrono::milliseconds(100 * std::min(comm.rank(), 20));
  if (!all_arrive(comm, patience + turn)) dist::abort_job(failure);
  const dist::Failure described = dist::describe(failure);
  if (comm.is_root()) fmt::print(stderr, "mrp: error: {}\n", printable(described.message));
  auto code = static_cast<std::int32_t>(described.code);
  comm.broadcast(std::span<std::int32_t>(&code, 1));
  return code;
}

}  // namespace mrp::jobs
