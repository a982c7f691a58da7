#include "jobs/stages.hpp"

#include "io/token_dataset.hpp"
#include "jobs/metrics_file.hpp"

namespace mrp::jobs {
namespace {

using Path = std::filesystem::path;

/// A stage with one file in the work directory, whose HDF5 attribute is the fingerprint.
Stage hdf5_stage(std::string name, std::string help, std::vector<std::string> inputs,
                 Path (Workspace::*file)() const, void (*run)(Job&)) {
  return {std::move(name), std::move(help), std::move(inputs),
          [file](const Job& job) { return std::vector<Path>{(job.work.*file)()}; },
          [file](const Job& job) { return io::read_fingerprint((job.work.*file)()); }, run};
}

std::string merged_fingerprint(const Job& job) {
  const auto manifest = io::Manifest::read(output_manifest(job.config.output));
  const auto merge = manifest.stages.find("merge");
  return merge == manifest.stages.end() ? "" : merge->second.fingerprint;
}

}  // namespace

const std::vector<Stage>& all_stages() {
  static const std::vector<Stage> stages = {
      hdf5_stage("prepare", "JSONL records to tokens", {}, &Workspace::tokens, prepare),
      hdf5_stage("capture", "hidden states at the sites", {"prepare"}, &Workspace::states, capture),
      hdf5_stage("solve", "the subspace of each site", {"capture"}, &Workspace::subspaces, solve),
      {"merge", "projections folded into the weights", {"solve"},
       [](const Job& job) { return std::vector<Path>{job.config.output}; }, merged_fingerprint, merge},
      {"evaluate", "metrics of both checkpoints", {"prepare", "merge"},
       [](const Job& job) { return std::vector<Path>{job.work.metrics()}; },
       [](const Job& job) { return MetricsFile::read(job.work.metrics()).fingerprint; }, evaluate}};
  return stages;
}

}  // namespace mrp::jobs
