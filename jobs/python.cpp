#include "jobs/python.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "dist/error.hpp"
#include "jobs/subprocess.hpp"

namespace mrp::jobs {
namespace {

std::string from_environment(const char* name, const char* standard) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : standard;
}

}  // namespace

void run_python(const std::string& script, const std::vector<std::string>& arguments,
                const std::function<void(const std::string&)>& line) {
  std::vector<std::string> command = {from_environment("MRP_PYTHON", MRP_PYTHON),
                                      from_environment("MRP_PY_DIR", MRP_PY_DIR) + "/" + script};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const Outcome outcome = run_program(command, line);
  if (outcome.exit_code == 0) return;
  constexpr std::string_view prefix = "error: ";
  const std::string& last = outcome.last_error_line;
  const auto code = static_cast<dist::ExitCode>(outcome.exit_code);
  const bool known = code == dist::ExitCode::usage || code == dist::ExitCode::input;
  if (known && last.starts_with(prefix)) throw dist::Error(code, last.substr(prefix.size()));
  throw dist::Error(
      dist::ExitCode::other,
      fmt::format("{} ended with exit code {}: {}; check MRP_PYTHON (a Python with the packages of "
                  "jobs/py/requirements.txt)",
                  script, outcome.exit_code, last.empty() ? "no message" : last));
}

}  // namespace mrp::jobs
