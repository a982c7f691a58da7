// Writes the unlearned checkpoint: a streaming, rank-parallel rewrite of the shards.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "dist/communicator.hpp"
#include "dist/timer.hpp"
#include "io/manifest.hpp"
#include "shard/edit/edit_plan.hpp"

namespace mrp::shard {

enum class Rounding { nearest, error_feedback };

struct MergeOptions {
  Rounding rounding = Rounding::error_feedback;
  std::uint64_t block_bytes = 32u << 20;  ///< work unit and memory bound of a rank
};

/// Collective over `comm`. Output files have the names, tensor order, dtypes and headers of the input; untouched
/// tensors are byte-identical; side files (config, tokenizer, ...) are copied. Files are written under partial names in a
/// sibling directory that is renamed when everything is synced. Returns a record for every tensor: SHA-256 and leak,
/// both from the bytes read back. @throws ResourceError before writing if the disk is too small; NumericalError
/// naming tensor and row for NaN or Inf.
std::map<std::string, io::TensorRecord> merge(const io::Checkpoint& checkpoint, const EditPlan& plan,
                                              const io::SubspaceFile& subspaces,
                                              const MergeOptions& options,
                                              const std::filesystem::path& output,
                                              const dist::Communicator& comm, dist::Timers& timers);

}  // namespace mrp::shard
