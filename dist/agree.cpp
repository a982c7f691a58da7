#include "dist/agree.hpp"

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

/// Throws the class that belongs to the exit code, so that handlers by class work on every rank.
[[noreturn]] void rethrow(const Failure& failure) {
  const auto thrown = [&](auto error) {
    error.set_reporter(failure.reporter);
    return error;
  };
  switch (failure.code) {
    case ExitCode::usage:
      throw thrown(UsageError(failure.message));
    case ExitCode::input:
      throw thrown(InputError(failure.message));
    case ExitCode::numerical:
      throw thrown(NumericalError(failure.message));
    case ExitCode::resources:
      throw thrown(ResourceError(failure.message));
    case ExitCode::done:
    case ExitCode::other:
      break;
  }
  throw thrown(Error(ExitCode::other, failure.message));
}

}  // namespace

void throw_together(const Communicator& comm, std::exception_ptr failure) {
  const int first = comm.all_reduce(failure ? comm.rank() : comm.size(), ReduceOp::min);
  if (first == comm.size()) return;
  Failure agreed;
  if (first == comm.rank()) agreed = describe(failure);
  int code = static_cast<int>(agreed.code);
  comm.broadcast(std::span<int>(&code, 1), first);
  agreed.code = static_cast<ExitCode>(code);
  agreed.message = comm.broadcast(agreed.message, first);
  agreed.reporter = comm.is_root();
  rethrow(agreed);
}

}  // namespace mrp::dist
