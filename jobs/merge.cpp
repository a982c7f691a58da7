#include "shard/edit/merge.hpp"

#include <fmt/format.h>

#include <memory>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "io/delta_store.hpp"
#include "io/subspace_store.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {

bool folds(const Job& job) {
  return has_stage(job, "solve") && job.config.refine.train != JobConfig::Train::projections;
}

io::SubspaceFile folded_subspaces(const Job& job) {
  // What the stages of this job made; an older job may have left other files.
  return folds(job) ? io::SubspaceFile::read(job.work.subspaces()) : io::SubspaceFile();
}

void merge(Job& job) {
  const dist::Communicator& world = *job.world;
  const OpenCheckpoint base = open_checkpoint(job.config.model, world);
  const auto subspaces = dist::agree(world, [&] { return folded_subspaces(job); });
  const auto deltas = dist::agree(world, [&] {
    return has_stage(job, "refine") ? std::make_unique<const io::DeltaReader>(job.work.deltas())
                                    : nullptr;
  });
  const auto plan = dist::agree(world, [&] {
    return shard::make_edit_plan(base.checkpoint, base.config, subspaces, deltas.get());
  });
  dist::log::info(fmt::format("merge: {} of {} tensors change", plan.edits.size(),
                              base.checkpoint.names().size()));
  for (const std::string& note : plan.notes) dist::log::warn("merge: " + note);

  shard::MergeOptions options;
  options.rounding = job.config.merge.rounding;
  options.fingerprint = job.expected.at("merge");
  job.manifest.tensors = shard::merge(base.checkpoint, plan, subspaces, deltas.get(), options,
                                      job.config.output, world, job.timers);
}

}  // namespace mrp::jobs
