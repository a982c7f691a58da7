#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "jobs/continuation.hpp"
#include "jobs/python.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

/// Fingerprint of a tokens.h5 that the sets of earlier requests have not joined yet.
constexpr const char* kUnfinished = "unfinished";

std::vector<std::string> arguments(const Job& job, const std::string& fingerprint) {
  const JobConfig::Data& data = job.config.data;
  std::vector<std::string> all = {"--model",         job.config.model.string(),
                                  "--output",        job.work.tokens().string(),
                                  "--max-tokens",    std::to_string(data.max_tokens),
                                  "--template",      data.prompt_template,
                                  "--overlap-limit", fmt::format("{}", data.overlap_limit),
                                  "--fingerprint",   fingerprint};
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

void add_earlier(const std::filesystem::path& path, std::map<std::string, io::TokenSet> earlier,
                 const std::string& fingerprint) {
  io::TokenDataset tokens = io::TokenDataset::read(path);
  dist::log::info(fmt::format("prepare: {} earlier requests are looked after", earlier.size()));
  tokens.sets.merge(earlier);
  tokens.fingerprint = fingerprint;
  tokens.write(path);
}

}  // namespace

void prepare(Job& job) {
  dist::agree(*job.world, [&] {
    if (!job.world->is_root()) return;
    const std::string& fingerprint = job.expected.at("prepare");
    auto earlier = earlier_requests(job.config);
    if (!job.config.continued.empty() && earlier.empty()) {
      dist::log::warn(
          "prepare: the work directory of the earlier request is gone; what was forgotten before "
          "is neither measured nor looked after");
    }
    run_python("prepare.py", arguments(job, earlier.empty() ? fingerprint : kUnfinished), log_line);
    if (!earlier.empty()) add_earlier(job.work.tokens(), std::move(earlier), fingerprint);
  });
}

}  // namespace mrp::jobs
