// The state of a training on disk, so that a job that ended early goes on where it was saved last.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "dist/communicator.hpp"

namespace mrp::shard {

/// A directory with two files a rank, written in turn: one of them is complete whatever happens.
class SavedState {
 public:
  /// `directory` belongs to one training with one rank count; its name should say which.
  SavedState(std::filesystem::path directory, const dist::Communicator& world)
      : directory_(std::move(directory)), world_(&world) {}

  /// Collective. Saves these fp32 tensors as they are after `steps` steps. @throws ResourceError.
  void save(std::vector<torch::Tensor> tensors, std::int64_t steps);
  /// Collective. Puts the newest state that all ranks have into the tensors; returns its steps, 0
  /// if there is none. Files that are broken or of another shape count as missing.
  std::int64_t load(const std::vector<torch::Tensor>& tensors) const;
  /// Collective. Removes the directory.
  void remove() const;

 private:
  std::filesystem::path file(int slot) const;

  std::filesystem::path directory_;
  const dist::Communicator* world_;
  int slot_ = 0;
};

}  // namespace mrp::shard
