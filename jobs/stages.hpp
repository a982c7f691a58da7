// One function for each stage, each in a file of its own name.
#pragma once

#include "io/subspace_store.hpp"
#include "jobs/stage_graph.hpp"

namespace mrp::jobs {

/// JSONL files → tokens.h5. All are collective over the world.
void prepare(Job& job);
/// The checkpoint and tokens.h5 → samples.h5.
void sample(Job& job);
/// The checkpoint, tokens.h5 and samples.h5 → states.h5.
void capture(Job& job);
/// states.h5 → subspaces.h5.
void solve(Job& job);
/// The checkpoint and tokens.h5 and samples.h5 → deltas.h5.
void refine(Job& job);
/// The checkpoint, subspaces.h5 and deltas.h5 → the unlearned checkpoint.
void merge(Job& job);
/// Both checkpoints and tokens.h5 → metrics.json.
void evaluate(Job& job);

/// All checkpoints and tokens.h5 → relearn.json.
void relearn(Job& job);

/// @throws InputError if `output` exists and no merge of ours wrote it. One rank calls it, early:
/// hours may pass until merge would say the same.
void require_own_output(const std::filesystem::path& output);

/// Prints what the stages will compute, move and hold, on so many ranks (0: those of the world),
/// and whether that fits; or, as JSON, the numbers alone. Collective over the world; needs
/// tokens.h5, and writes nothing. @throws ResourceError if it does not fit.
void plan(Job& job, int ranks, bool as_json);

/// Whether merge folds projections: not where they were trained, since the changes hold them.
bool folds(const Job& job);

/// The projections that merge folds, none if it folds none.
/// @throws InputError for a missing or broken file.
io::SubspaceFile folded_subspaces(const Job& job);

/// What `mrp run` prints at its end: metrics before and after, sites, times, files. One rank calls
/// it.
std::string result_table(const Job& job);

/// What `path` holds, in words and numbers: a checkpoint or any file of ours. One rank calls it.
/// @throws InputError for anything else.
std::string inspect(const std::filesystem::path& path);

}  // namespace mrp::jobs
