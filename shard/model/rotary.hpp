// Rotary position embedding.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "io/model_config.hpp"

namespace mrp::shard {

/// Cosines and sines of some positions [… × length], [… × length × head_dim], one copy for both
/// halves.
struct RotaryTable {
  torch::Tensor cos;
  torch::Tensor sin;

  /// states [batch × heads × length × head_dim], rotated: pairs are (i, i + head_dim / 2).
  torch::Tensor rotate(const torch::Tensor& states) const;
};

class Rotary {
 public:
  /// Scalings: default, linear, llama3; dynamic is default, being the same up to the trained
  /// length, beyond which no sequence is accepted.
  Rotary(const io::ModelConfig& config, torch::Device device);

  /// Of `positions` i64 [… × length]. Angles are computed in fp32; the table has `dtype`, in which
  /// the rotation is computed.
  RotaryTable table(const torch::Tensor& positions, torch::ScalarType dtype) const;

 private:
  torch::Tensor frequencies_;  // fp32 [head_dim / 2], radians per position
};

}  // namespace mrp::shard
