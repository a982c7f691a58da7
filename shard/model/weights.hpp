// Reads slices of a checkpoint's tensors into memory, checked and converted.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "dist/partition.hpp"
#include "io/checkpoint.hpp"

namespace mrp::shard {

/// A block of a matrix of the checkpoint.
struct WeightBlock {
  std::string tensor;
  std::int64_t height = 0;  ///< of the whole matrix
  std::int64_t width = 0;   ///< of the whole matrix
  dist::Range rows;
  dist::Range columns;
};

/// Not collective: only the bytes asked for are read. Tensors on disk may be BF16, F16 or F32.
/// All members @throw InputError that names the tensor: missing, another shape, another type, NaN
/// or Inf.
class WeightReader {
 public:
  /// Refers to `checkpoint`, which must outlive it. Results have `dtype` and lie on `device`.
  WeightReader(const io::Checkpoint& checkpoint, torch::Device device, torch::ScalarType dtype);

  /// [rows × columns] of the block.
  torch::Tensor matrix(const WeightBlock& block) const;
  /// Entries `range` of a vector with `length` entries.
  torch::Tensor vector(const std::string& tensor, std::int64_t length, dist::Range range) const;

 private:
  void check_shape(const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  torch::Tensor convert(const std::string& tensor, std::vector<std::byte> bytes,
                        const std::vector<std::int64_t>& shape) const;

  const io::Checkpoint* checkpoint_;
  torch::Device device_;
  torch::ScalarType dtype_;
};

}  // namespace mrp::shard
