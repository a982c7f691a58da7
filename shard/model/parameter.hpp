// A tensor of the model as one tensor rank holds it, for those who train or replace it.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "shard/model/tensor_collectives.hpp"
#include "shard/model/weights.hpp"
#include "shard/site.hpp"

namespace mrp::shard {

/// Valid as long as the model. Whoever assigns to *value changes what the next forward computes.
struct Parameter {
  std::string name;                ///< "layers.3.qkv.weight", "embedding.weight", ...
  std::optional<Site> input;       ///< of a linear weight: the site that it reads
  torch::Tensor* value = nullptr;  ///< [local rows × local columns] or a vector
  /// Where the rows stand in the checkpoint, in order; a vector is one row. Replicated tensors have
  /// the same blocks on all ranks.
  std::vector<WeightBlock> blocks;
  /// Rows that several ranks hold (key and value heads fewer than ranks). Each rank's gradient of
  /// them covers its own query heads: the gradient is the sum over `sharers`.
  dist::Range shared_rows{};
  const TensorCollectives* sharers = nullptr;
};

}  // namespace mrp::shard
