#include "jobs/stage_graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "dist/traffic.hpp"

namespace mrp::jobs {
namespace {

bool is_current(const Job& job, const Stage& stage) {
  const std::string present = dist::agree(
      *job.world, [&] { return job.world->is_root() ? stage.present(job) : std::string(); });
  return job.world->broadcast(present) == job.expected.at(stage.name);
}

void record(Job& job, const Stage& stage, double seconds, std::uint64_t sent) {
  io::StageRecord entry;
  entry.fingerprint = job.expected.at(stage.name);
  entry.version = MRP_VERSION;
  entry.ranks = job.world->size();
  entry.seconds = job.world->all_reduce(seconds, dist::ReduceOp::max);
  entry.peak_memory = job.world->all_reduce(dist::peak_memory(), dist::ReduceOp::max);
  entry.sent = job.world->all_reduce(sent, dist::ReduceOp::max);
  entry.timers = job.timers.reduce(*job.world);
  for (const auto& path : stage.outputs(job)) entry.outputs.push_back(path.string());
  dist::log::info(fmt::format("{}: done in {:.1f} s, peak memory {:.2f} GiB a rank", stage.name,
                              entry.seconds,
                              static_cast<double>(entry.peak_memory) / double(1u << 30)));
  dist::agree(*job.world, [&] {
    if (!job.world->is_root()) return;
    job.manifest.stages[stage.name] = std::move(entry);
    job.manifest.write(job.work.manifest());
  });
}

}  // namespace

bool has_stage(const Job& job, const std::string& name) {
  return job.expected.contains(name);
}

void require_inputs(const Job& job, const std::vector<Stage>& stages, const std::string& what,
                    const std::vector<std::string>& inputs) {
  for (const std::string& name : inputs) {
    if (!has_stage(job, name)) continue;
    const auto& input = *std::find_if(stages.begin(), stages.end(),
                                      [&](const Stage& other) { return other.name == name; });
    if (is_current(job, input)) continue;
    throw dist::InputError(
        fmt::format("{} needs {}, which is missing or was made with other settings or data; run "
                    "mrp {} first, or mrp run",
                    what, input.outputs(job).front().string(), name));
  }
}

void run_stage(Job& job, const std::vector<Stage>& stages, std::size_t index) {
  const Stage& stage = stages[index];
  if (!job.force && is_current(job, stage)) {
    dist::log::info(fmt::format("{}: up to date, skipped", stage.name));
    return;
  }
  require_inputs(job, stages, stage.name, stage.inputs);
  dist::log::info(fmt::format("{}: {}", stage.name, stage.help));
  job.timers = dist::Timers();
  dist::reset_peak_memory();
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t sent = dist::bytes_sent();
  stage.run(job);
  job.world->barrier();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  record(job, stage, elapsed.count(), dist::bytes_sent() - sent);
}

}  // namespace mrp::jobs
