// Token embedding whose vocabulary is split over the tensor ranks.
#pragma once

#include <torch/types.h>

#include "dist/partition.hpp"
#include "shard/model/tensor_collectives.hpp"

namespace mrp::shard {

class ParallelEmbedding {
 public:
  /// weight [local vocabulary × hidden] holds the entries `range`. `collectives` must outlive the
  /// layer.
  ParallelEmbedding(torch::Tensor weight, dist::Range range, const TensorCollectives& collectives);
  /// Collective over the tensor ranks. i64 [batch × length] → [batch × length × hidden], complete
  /// on all ranks.
  torch::Tensor forward(const torch::Tensor& tokens) const;
  torch::Tensor& weight() { return weight_; }

 private:
  torch::Tensor weight_;
  dist::Range range_;
  const TensorCollectives* collectives_;
};

}  // namespace mrp::shard
