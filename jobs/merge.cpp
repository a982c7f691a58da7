#include "shard/edit/merge.hpp"

#include <fmt/format.h>

#include <system_error>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "io/subspace_store.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;

/// ".NAME.suffix" beside `output`: on the same file system, so that a rename is enough.
fs::path sibling(const fs::path& output, const std::string& suffix) {
  return output.parent_path() / fmt::format(".{}.{}", output.filename().string(), suffix);
}

/// A directory of ours that is gone when this goes, unless it was renamed.
struct Scratch {
  fs::path path;
  explicit Scratch(fs::path directory) : path(std::move(directory)) {}
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

/// Only what is the same whenever the same job runs, so that equal jobs make equal directories.
void write_output_manifest(const Job& job, const fs::path& directory) {
  io::Manifest manifest;
  io::StageRecord& merge = manifest.stages["merge"];
  merge.fingerprint = job.expected.at("merge");
  merge.version = MRP_VERSION;
  merge.ranks = job.world->size();
  manifest.tensors = job.manifest.tensors;
  manifest.write(output_manifest(directory));
}

/// Puts `staged` in the place of `output`, of which at any time either the old or the new form exists.
void replace(const fs::path& staged, const fs::path& output) {
  const Scratch old(sibling(output, "mrp-old"));
  fs::remove_all(old.path);
  if (fs::exists(output)) fs::rename(output, old.path);
  fs::rename(staged, output);
}

}  // namespace

fs::path output_manifest(const fs::path& output) { return output / "manifest.json"; }

void require_own_output(const fs::path& output) {
  if (!fs::exists(fs::symlink_status(output))) return;
  const bool is_directory = fs::is_directory(output) && !fs::is_symlink(output);
  if (is_directory && fs::is_empty(output)) return;
  if (is_directory && io::Manifest::read(output_manifest(output)).stages.contains("merge")) return;
  throw dist::InputError(fmt::format(
      "output {} exists and was not made by mrp merge; move it away or set output: to another place",
      output.string()));
}

void merge(Job& job) {
  const dist::Communicator& world = *job.world;
  const auto [checkpoint, config] = open_checkpoint(job.config.model, world);
  const auto subspaces =
      dist::agree(world, [&] { return io::SubspaceFile::read(job.work.subspaces()); });
  const auto plan = dist::agree(
      world, [&, &base = checkpoint, &model = config] { return shard::make_edit_plan(base, model, subspaces); });
  dist::log::info(fmt::format("merge: {} of {} tensors change", plan.edits.size(), checkpoint.names().size()));
  for (const std::string& note : plan.notes) dist::log::warn("merge: " + note);

  const fs::path staged = sibling(job.config.output, "mrp-new");
  dist::agree(world, [&] {
    if (!world.is_root()) return;
    require_own_output(job.config.output);
    fs::remove_all(staged);
    fs::create_directories(job.config.output.parent_path());
  });
  shard::MergeOptions options;
  options.rounding = job.config.merge.rounding;
  auto tensors = shard::merge(checkpoint, plan, subspaces, options, staged, world, job.timers);
  dist::agree(world, [&] {
    if (!world.is_root()) return;
    const Scratch scratch(staged);
    job.manifest.tensors = std::move(tensors);
    write_output_manifest(job, staged);
    replace(staged, job.config.output);
  });
}

}  // namespace mrp::jobs
