// The exceptions of mrp. What a user can meet is an Error with an exit code; our own bugs are
// ContractError. A message is one line: what, where, what to do.
#pragma once

#include <exception>
#include <source_location>
#include <stdexcept>
#include <string>

namespace mrp::dist {

/// Exit status of `mrp`; part of the command line's contract (README, "Exit codes").
enum class ExitCode : int {
  done = 0,
  other = 1,
  usage = 2,
  input = 3,
  numerical = 4,
  resources = 5
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message,
        std::source_location where = std::source_location::current())
      : std::runtime_error(message), code_(code), where_(where) {}

  ExitCode exit_code() const noexcept { return code_; }
  const std::source_location& where() const noexcept { return where_; }

  /// Whether this rank prints it. All ranks throw an agreed failure (dist/agree.hpp), one prints
  /// it.
  bool is_reporter() const noexcept { return reporter_; }
  void set_reporter(bool reporter) noexcept { reporter_ = reporter; }

 private:
  ExitCode code_;
  std::source_location where_;
  bool reporter_ = true;
};

/// Command line or job file: unknown key, wrong type, illegal combination.
struct UsageError : Error {
  explicit UsageError(const std::string& message,
                      std::source_location where = std::source_location::current())
      : Error(ExitCode::usage, message, where) {}
};

/// A file, checkpoint or data set that is missing, broken or hostile.
struct InputError : Error {
  explicit InputError(const std::string& message,
                      std::source_location where = std::source_location::current())
      : Error(ExitCode::input, message, where) {}
};

/// NaN, divergence, a factorisation that failed: names routine, argument and matrix.
struct NumericalError : Error {
  explicit NumericalError(const std::string& message,
                          std::source_location where = std::source_location::current())
      : Error(ExitCode::numerical, message, where) {}
};

/// Too little disk or memory, or the operating system refused.
struct ResourceError : Error {
  explicit ResourceError(const std::string& message,
                         std::source_location where = std::source_location::current())
      : Error(ExitCode::resources, message, where) {}
};

/// An MPI call that did not return MPI_SUCCESS: failing expression and decoded text.
struct MpiError : Error {
  MpiError(const char* expression, int mpi_code, std::source_location where);
};

/// A broken precondition: a bug of ours, never a user's mistake.
struct ContractError : Error {
  ContractError(const char* expression, const std::string& message, std::source_location where);
};

/// What an exception means outside the program.
struct Failure {
  ExitCode code = ExitCode::other;
  std::string message;   ///< one line
  bool reporter = true;  ///< this rank prints it
};

/// Any exception as a Failure: an Error as it says, std::bad_alloc as `resources`, others as
/// `other` with the first line of what(). @pre `failure` is not null.
Failure describe(const std::exception_ptr& failure);

/// @throws MpiError unless `mpi_code` is MPI_SUCCESS.
void check_mpi(int mpi_code, const char* expression,
               std::source_location where = std::source_location::current());

/// @throws ContractError unless `condition` holds.
inline void expect(bool condition, const char* expression, const std::string& message = {},
                   std::source_location where = std::source_location::current()) {
  if (!condition) throw ContractError(expression, message, where);
}

}  // namespace mrp::dist

/// MRP_MPI(MPI_Barrier(comm)): the call, checked.
#define MRP_MPI(call) ::mrp::dist::check_mpi((call), #call)
/// MRP_EXPECT(rows > 0, "text"): a precondition, checked in every build type.
#define MRP_EXPECT(condition, ...) \
  ::mrp::dist::expect((condition), #condition __VA_OPT__(, ) __VA_ARGS__)
