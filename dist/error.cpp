#include "dist/error.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <array>
#include <new>
#include <string_view>

namespace mrp::dist {
namespace {

/// "dist/error.cpp:12": the last two parts of the path say enough, wherever the tree was built.
std::string place(const std::source_location& where) {
  std::string_view file = where.file_name();
  const auto name = file.rfind('/');
  if (name != std::string_view::npos && name > 0) {
    const auto folder = file.rfind('/', name - 1);
    if (folder != std::string_view::npos) file.remove_prefix(folder + 1);
  }
  return fmt::format("{}:{}", file, where.line());
}

std::string mpi_text(int mpi_code) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  int finalized = 0;
  MPI_Finalized(&finalized);
  // Decoding is allowed only while MPI is up.
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (initialized == 0 || finalized != 0 ||
      MPI_Error_string(mpi_code, text.data(), &length) != MPI_SUCCESS) {
    return fmt::format("MPI error {}", mpi_code);
  }
  return {text.data(), static_cast<std::size_t>(length)};
}

}  // namespace

MpiError::MpiError(const char* expression, int mpi_code, std::source_location where)
    : Error(ExitCode::other,
            fmt::format("{} failed: {} [{}]", expression, mpi_text(mpi_code), place(where)),
            where) {}

ContractError::ContractError(const char* expression, const std::string& message,
                             std::source_location where)
    : Error(ExitCode::other,
            fmt::format("internal error: {} does not hold{}{} [{}]", expression,
                        message.empty() ? "" : ": ", message, place(where)),
            where) {}

void check_mpi(int mpi_code, const char* expression, std::source_location where) {
  if (mpi_code != MPI_SUCCESS) throw MpiError(expression, mpi_code, where);
}

Failure describe(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return {error.exit_code(), error.what(), error.is_reporter()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::resources,
            "out of memory: give the job more memory or spread it over more nodes", true};
  } catch (const std::exception& error) {
    // Libraries append stack traces to their messages, below the first line.
    const std::string_view text = error.what();
    return {ExitCode::other, std::string(text.substr(0, text.find('\n'))), true};
  } catch (...) {
    return {ExitCode::other, "an exception of an unknown type", true};
  }
}

}  // namespace mrp::dist
