// `continue`: a further request on a checkpoint from which mrp has removed something before.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "dist/communicator.hpp"
#include "io/subspace_store.hpp"
#include "io/token_dataset.hpp"
#include "jobs/job_config.hpp"

namespace mrp::jobs {

struct Continuation {
  std::filesystem::path checkpoint;
  std::filesystem::path work;  ///< of the job that wrote it; empty if it is no longer there
};

/// What `path` names: an unlearned checkpoint, whose work directory is then looked for at
/// <checkpoint>.work, or a work directory.
/// @throws UsageError if it is neither, or if the checkpoint is not the one that the job wrote.
Continuation find_continuation(const std::filesystem::path& path);

/// Collective over `world`. @throws InputError unless the weights are those that merge wrote.
void require_unmodified(const std::filesystem::path& checkpoint, const dist::Communicator& world);

/// What earlier requests asked to be forgotten, oldest first: earlier_1, earlier_2, ... Empty
/// without `continue` or if their tokens are gone. @throws InputError for a broken file.
std::map<std::string, io::TokenSet> earlier_requests(const JobConfig& config);

/// Whether a set of this name is (to be) forgotten: "forget" or one of earlier_requests.
bool is_forgotten(const std::string& set);

/// Of everything that `set` holds.
std::string digest(const io::TokenSet& set);

/// The projections that earlier requests folded, whose kernels later ones keep; none if there are
/// none. @throws InputError for a broken file.
io::SubspaceFile earlier_subspaces(const JobConfig& config);

}  // namespace mrp::jobs
