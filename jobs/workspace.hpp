// The work directory of a job: its files, its creation and its lock.
#pragma once

#include <filesystem>
#include <string>

namespace mrp::jobs {

/// Names of the files between the stages. Hidden states and tokens reveal what was forgotten: only
/// the owner can enter.
class Workspace {
 public:
  explicit Workspace(std::filesystem::path directory) : directory_(std::move(directory)) {}

  const std::filesystem::path& directory() const noexcept { return directory_; }
  std::filesystem::path tokens() const { return directory_ / "tokens.h5"; }
  std::filesystem::path states() const { return directory_ / "states.h5"; }
  std::filesystem::path subspaces() const { return directory_ / "subspaces.h5"; }
  std::filesystem::path samples() const { return directory_ / "samples.h5"; }
  std::filesystem::path deltas() const { return directory_ / "deltas.h5"; }
  std::filesystem::path steps() const { return directory_ / "refine.jsonl"; }
  std::filesystem::path metrics() const { return directory_ / "metrics.json"; }
  std::filesystem::path relearn() const { return directory_ / "relearn.json"; }
  std::filesystem::path manifest() const { return directory_ / "manifest.json"; }

 private:
  std::filesystem::path directory_;
};

/// Creates the work directory (0700) and holds its lock, so that two jobs never write into it at
/// once. The lock goes with the process; a directory that holds nothing else then goes too. One
/// rank of a job owns it.
class WorkLock {
 public:
  /// @throws ResourceError if another job holds the lock (says which) or the directory cannot be
  /// made.
  explicit WorkLock(const std::filesystem::path& directory);
  ~WorkLock();
  WorkLock(const WorkLock&) = delete;
  WorkLock& operator=(const WorkLock&) = delete;

 private:
  std::filesystem::path directory_;
  int descriptor_ = -1;
};

}  // namespace mrp::jobs
