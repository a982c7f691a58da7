#include "jobs/stages.hpp"

#include <fmt/format.h>

#include "dist/error.hpp"
#include "io/token_dataset.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/relearn_file.hpp"
#include "shard/edit/output_directory.hpp"

namespace mrp::jobs {
namespace {

using Path = std::filesystem::path;

/// A stage with one file in the work directory, whose HDF5 attribute is the fingerprint.
Stage hdf5_stage(std::string name, std::string help, std::vector<std::string> inputs,
                 Path (Workspace::*file)() const, void (*run)(Job&)) {
  return {std::move(name),
          std::move(help),
          std::move(inputs),
          [file](const Job& job) { return std::vector<Path>{(job.work.*file)()}; },
          [file](const Job& job) { return io::read_fingerprint((job.work.*file)()); },
          run};
}

/// What became of every tensor stands in the manifest: without it, the merge counts as not done.
std::string present_merge(const Job& job) {
  const std::string merged = shard::merged_fingerprint(job.config.output);
  const auto recorded = job.manifest.stages.find("merge");
  const bool known =
      recorded != job.manifest.stages.end() && recorded->second.fingerprint == merged;
  return known ? merged : "";
}

}  // namespace

const std::vector<Stage>& all_stages() {
  static const std::vector<Stage> stages = {
      hdf5_stage("prepare", "JSONL records to tokens", {}, &Workspace::tokens, prepare),
      hdf5_stage("sample", "texts that the base model writes by itself", {"prepare"},
                 &Workspace::samples, sample),
      hdf5_stage("capture", "hidden states at the sites", {"prepare", "sample"}, &Workspace::states,
                 capture),
      hdf5_stage("solve", "the subspace of each site", {"capture"}, &Workspace::subspaces, solve),
      hdf5_stage("refine", "trained changes of the weights", {"prepare", "sample", "solve"},
                 &Workspace::deltas, refine),
      {"merge",
       "changes and projections written into the weights",
       {"solve", "refine"},
       [](const Job& job) { return std::vector<Path>{job.config.output}; },
       present_merge,
       merge},
      {"evaluate",
       "metrics of the checkpoints",
       {"prepare", "merge"},
       [](const Job& job) { return std::vector<Path>{job.work.metrics()}; },
       [](const Job& job) { return MetricsFile::read(job.work.metrics()).fingerprint; },
       evaluate},
      {"relearn",
       "attacks that try to bring the forgotten back",
       {"prepare", "merge"},
       [](const Job& job) { return std::vector<Path>{job.work.relearn()}; },
       [](const Job& job) { return RelearnFile::read(job.work.relearn()).fingerprint; },
       relearn,
       /*on_request=*/true}};
  return stages;
}

void require_own_output(const Path& output) {
  if (!std::filesystem::exists(std::filesystem::symlink_status(output))) return;
  const bool is_directory =
      std::filesystem::is_directory(output) && !std::filesystem::is_symlink(output);
  if (is_directory && std::filesystem::is_empty(output)) return;
  if (is_directory && !shard::merged_fingerprint(output).empty()) return;
  throw dist::InputError(fmt::format(
      "output {} exists and was not written by mrp; remove it or set output: to another place",
      output.string()));
}

}  // namespace mrp::jobs
