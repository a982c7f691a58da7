// The steps of merge, each collective: write all bytes, read them back.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "dist/partition.hpp"
#include "shard/edit/merge.hpp"
#include "shard/edit/tensor_fold.hpp"
#include "shard/edit/work_units.hpp"

namespace mrp::shard {

struct MergeJob {
  const io::Checkpoint& checkpoint;
  const EditPlan& plan;
  const io::SubspaceFile& subspaces;
  const io::DeltaReader* deltas;  ///< null where nothing was trained
  const MergeOptions& options;
  const std::filesystem::path& directory;  ///< where the files grow
  const dist::Communicator& comm;

  std::filesystem::path output_file(std::size_t file) const {
    return directory / checkpoint.files()[file].path().filename();
  }
};

struct Written {
  std::vector<WorkUnit> units;  ///< of all ranks
  std::vector<char> digests;    ///< [units × io::xxh3_digits] of the bytes that went to the disk
  std::vector<SquaredNorms> removed;  ///< of each edit of the plan
};

/// Collective. Fills the (allocated) files and syncs them.
Written write_tensors(const MergeJob& job);

/// Collective. Reads everything back: the digests of units, SHA-256 of each tensor, leak of edited
/// ones.
std::map<std::string, io::TensorRecord> read_back(const MergeJob& job, const Written& written);

/// Collective. Runs step(i) for each i of this rank's share, which ends early when a step threw on
/// any rank; then all ranks throw. A rank may be minutes away from the next collective, so the news
/// travels as a file in the output directory. `weights` [items] are what progress counts, in bytes.
template <class Step, class Finish>
void run_share(const MergeJob& job, const std::string& what, const std::vector<dist::Range>& shares,
               const std::vector<std::uint64_t>& weights, Step&& step, Finish&& finish) {
  const std::filesystem::path flag = job.directory / "failed";
  dist::agree(job.comm, [&] {
    try {
      const dist::Range mine = shares[static_cast<std::size_t>(job.comm.rank())];
      // Shares are balanced: rank 0's progress stands for all.
      const double megabytes = 1e-6 * static_cast<double>(job.comm.size());
      double total = 0, done = 0;
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        total += megabytes * static_cast<double>(weights[static_cast<std::size_t>(i)]);
      }
      dist::log::Progress progress(what, static_cast<std::int64_t>(total), "MB");
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        if (std::filesystem::exists(flag)) return;
        step(static_cast<std::size_t>(i));
        const double before = done;
        done += megabytes * static_cast<double>(weights[static_cast<std::size_t>(i)]);
        progress.advance(static_cast<std::int64_t>(done) - static_cast<std::int64_t>(before));
      }
      finish();
    } catch (...) {
      std::ofstream{flag};
      throw;
    }
  });
}

}  // namespace mrp::shard
