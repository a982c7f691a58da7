#include <fmt/format.h>

#include <cstdlib>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "jobs/stages.hpp"
#include "jobs/subprocess.hpp"

namespace mrp::jobs {
namespace {

std::string from_environment(const char* name, const char* standard) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : standard;
}

std::vector<std::string> command(const Job& job) {
  const JobConfig::Data& data = job.config.data;
  std::vector<std::string> arguments = {from_environment("MRP_PYTHON", MRP_PYTHON),
                                        from_environment("MRP_PY_DIR", MRP_PY_DIR) + "/prepare.py",
                                        "--model",
                                        job.config.model.string(),
                                        "--output",
                                        job.work.tokens().string(),
                                        "--max-tokens",
                                        std::to_string(data.max_tokens),
                                        "--template",
                                        data.prompt_template,
                                        "--overlap-limit",
                                        fmt::format("{}", data.overlap_limit),
                                        "--fingerprint",
                                        job.expected.at("prepare")};
  for (const auto& [name, path] : job.config.sets()) {
    arguments.push_back("--set");
    arguments.push_back(name + "=" + path.string());
  }
  return arguments;
}

/// What the program says in its exit code and its last line becomes an error of ours.
void check(const Outcome& outcome) {
  if (outcome.exit_code == 0) return;
  constexpr std::string_view prefix = "error: ";
  const std::string& line = outcome.last_error_line;
  const auto code = static_cast<dist::ExitCode>(outcome.exit_code);
  const bool known = code == dist::ExitCode::usage || code == dist::ExitCode::input;
  if (known && line.starts_with(prefix)) throw dist::Error(code, line.substr(prefix.size()));
  throw dist::Error(
      dist::ExitCode::other,
      fmt::format("prepare.py ended with exit code {}: {}; check MRP_PYTHON (a Python "
                  "with transformers and h5py)",
                  outcome.exit_code, line.empty() ? "no message" : line));
}

void log_line(const std::string& line) {
  constexpr std::string_view warning = "warning: ";
  if (line.starts_with(warning)) {
    dist::log::warn("prepare: " + line.substr(warning.size()));
  } else if (!line.empty()) {
    dist::log::info("prepare: " + line);
  }
}

}  // namespace

void prepare(Job& job) {
  dist::agree(*job.world, [&] {
    if (job.world->is_root()) check(run_program(command(job), log_line));
  });
}

}  // namespace mrp::jobs
