// Writes the unlearned checkpoint: a streaming, rank-parallel rewrite of the shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "dist/communicator.hpp"
#include "dist/timer.hpp"
#include "io/checkpoint.hpp"
#include "io/delta_store.hpp"
#include "io/manifest.hpp"
#include "io/subspace_store.hpp"
#include "shard/edit/edit_plan.hpp"
#include "shard/edit/output_directory.hpp"
#include "shard/edit/rounding.hpp"

namespace mrp::shard {

struct MergeOptions {
  Rounding rounding = Rounding::error_feedback;
  std::uint64_t block_bytes = 8u << 20;  ///< work unit; a rank holds five of them at most
  std::string fingerprint;               ///< of the job; stands in the output's mark (mrp.json)
};

/// Collective over `comm`; the arguments must be the same on all ranks, `plan` made of `subspaces`
/// and `deltas` (null where nothing was trained). A tensor W becomes (W + ΔW) P, its leak is
/// relative to W + ΔW. Output files have the names, tensor order, dtypes and headers of the input;
/// untouched tensors are byte-identical; everything is read back and compared; index and side files
/// (config, tokenizer, ...) are copied. The bytes do not depend on the number of ranks, on
/// block_bytes or on the processor. The files grow in
/// "<output>.partial", which becomes `output` when everything is on the disk and checked; on any
/// error it is removed. An `output` that an earlier merge wrote is replaced. Returns a record for
/// every tensor: SHA-256 and leak, both from the bytes read back.
/// @throws InputError: `output` exists and is not ours; UsageError: it is or holds the input;
/// ResourceError: the disk is too small (before anything is written) or returns other bytes than
/// were written; NumericalError naming tensor and row for NaN or Inf; InputError for a trained
/// change that is not finite.
std::map<std::string, io::TensorRecord> merge(
    const io::Checkpoint& checkpoint, const EditPlan& plan, const io::SubspaceFile& subspaces,
    const io::DeltaReader* deltas, const MergeOptions& options, const std::filesystem::path& output,
    const dist::Communicator& comm, dist::Timers& timers);

}  // namespace mrp::shard
