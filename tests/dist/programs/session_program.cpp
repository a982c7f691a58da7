// Ends in the way that its argument names; session_test.py runs it under mpirun.
#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <string>

#include "dist/agree.hpp"
#include "dist/communicator.hpp"
#include "dist/error.hpp"
#include "dist/session.hpp"

namespace {

using mrp::dist::Communicator;

void run(const std::string& mode, const mrp::dist::Session& session) {
  const auto comm = Communicator::world();
  const bool last = comm.rank() == comm.size() - 1;
  if (mode == "threads") {
    fmt::print("rank {} threads {}\n", comm.rank(), session.threads());
  } else if (mode == "abort") {
    if (last) mrp::dist::abort_job("from the last rank", 4);
    comm.barrier();
  } else if (mode == "throw") {
    if (last) throw mrp::dist::InputError("a file of the last rank");
    comm.barrier();
  } else if (mode == "agree") {
    mrp::dist::agree(comm, [&] {
      if (last) throw mrp::dist::ResourceError("a disk of the last rank");
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const char* launched_as = std::getenv("OMPI_COMM_WORLD_RANK");
  const bool second = launched_as != nullptr && std::string(launched_as) == "1";
  if (mode == "before" && second) mrp::dist::abort_job("before MPI", 2);
  try {
    const mrp::dist::Session session(argc, argv);
    run(mode, session);
  } catch (...) {
    mrp::dist::abort_job(std::current_exception());
  }
  if (mode == "after" && second) mrp::dist::abort_job("after MPI", 5);
  return 0;
}
