// Keys and values of what has run, so that a further token of a sequence costs one position.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace mrp::shard {

/// Of the sequences of one batch, padded on the left: what runs next takes the same slots in all of
/// them. For passes that are not recorded for gradients.
class KvCache {
 public:
  /// `padding` [batch]: the slots of each sequence before its first token. `capacity`: slots of a
  /// sequence, padding included.
  KvCache(std::vector<std::int64_t> padding, std::int64_t capacity, torch::Device device);

  /// A pass over the next `count` slots begins. Returns their positions in the sequences, i64
  /// [batch × 1 × count], 0 for padding; the batch is 1 where all sequences have the same.
  torch::Tensor begin_pass(std::int64_t count);
  /// Causal attention of the pass in one layer: query [batch × heads × count × head_dim] over all
  /// that the layer holds, and key and value [batch × kv heads × count × head_dim], which it holds
  /// from then on. Returns the shape of `query`.
  torch::Tensor attend(std::int64_t layer, const torch::Tensor& query, const torch::Tensor& key,
                       const torch::Tensor& value);
  void end_pass();

  /// Keeps only the sequences `rows`, in this order.
  void keep(const std::vector<std::int64_t>& rows);

 private:
  struct Layer {
    torch::Tensor keys, values;  // [batch × kv heads × capacity × head_dim]
  };

  std::vector<Layer> layers_;
  torch::Tensor padding_;  // i64 [batch]; undefined if there is none
  std::int64_t batch_;
  std::int64_t capacity_;
  torch::Device device_;
  std::int64_t length_ = 0;  // slots that are filled
  std::int64_t count_ = 0;   // slots of the pass
  // Of the pass: what each slot sees, [batch or 1 × 1 × count × length + count]; empty: all.
  std::optional<torch::Tensor> mask_;
};

}  // namespace mrp::shard
