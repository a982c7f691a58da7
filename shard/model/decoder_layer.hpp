// One pre-norm decoder layer with hooks at its sites.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "shard/model/attention.hpp"
#include "shard/model/mlp.hpp"
#include "shard/model/norm.hpp"
#include "shard/model/placement.hpp"
#include "shard/model/site_hook.hpp"

namespace mrp::shard {

class DecoderLayer {
 public:
  /// Not collective.
  DecoderLayer(const WeightReader& weights, const Architecture& architecture,
               const io::ModelConfig& config, std::int64_t layer,
               const TensorCollectives& collectives);

  /// Collective over the tensor ranks. stream [batch × length × hidden] → the same after the layer.
  /// With `last`, nothing behind that site is computed and the result has no meaning.
  torch::Tensor forward(torch::Tensor stream, const Placement& placement, const SiteHook& hook,
                        const Site* last) const;
  /// For inference only: see pack_weight.
  void pack();
  void add_parameters(const Architecture& architecture, const TensorCollectives* sharers,
                      std::vector<Parameter>& all);

 private:
  std::int64_t layer_;
  RmsNorm input_norm_;
  Attention attention_;
  RmsNorm mlp_norm_;
  Mlp mlp_;
};

}  // namespace mrp::shard
