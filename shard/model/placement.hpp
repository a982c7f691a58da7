// Where the tokens of a pass stand in their sequences, and what they attend to.
#pragma once

#include <torch/types.h>

#include "shard/model/kv_cache.hpp"
#include "shard/model/rotary.hpp"

namespace mrp::shard {

struct Placement {
  RotaryTable rotary;
  /// Of a packed batch (shard/packing.hpp), i32 [rows × length × 3] and bool [rows × 1 × length ×
  /// length]; undefined: each token sees those before it in its row.
  torch::Tensor seen, mask;
  KvCache* cache = nullptr;  ///< of whose sequences the tokens are the next
};

}  // namespace mrp::shard
