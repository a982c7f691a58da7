#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "jobs/python.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

std::vector<std::string> arguments(const Job& job) {
  const JobConfig::Data& data = job.config.data;
  std::vector<std::string> all = {"--model",         job.config.model.string(),
                                  "--output",        job.work.tokens().string(),
                                  "--max-tokens",    std::to_string(data.max_tokens),
                                  "--template",      data.prompt_template,
                                  "--overlap-limit", fmt::format("{}", data.overlap_limit),
                                  "--fingerprint",   job.expected.at("prepare")};
  for (const auto& [name, path] : job.config.sets()) {
    all.push_back("--set");
    all.push_back(name + "=" + path.string());
  }
  return all;
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
    if (job.world->is_root()) run_python("prepare.py", arguments(job), log_line);
  });
}

}  // namespace mrp::jobs
