// What distinguishes the decoder of one model_type from another's: a row of a table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/model_config.hpp"

namespace mrp::shard {

/// Names are those of the checkpoint: modules of a layer without "model.layers.N." and ".weight".
/// A biased module has "<name>.bias" beside "<name>.weight".
struct Architecture {
  std::string_view model_type;

  std::string_view embedding = "model.embed_tokens";
  std::string_view layers = "model.layers";
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";

  std::string_view input_norm = "input_layernorm";
  std::string_view q_proj = "self_attn.q_proj";
  std::string_view k_proj = "self_attn.k_proj";
  std::string_view v_proj = "self_attn.v_proj";
  std::string_view o_proj = "self_attn.o_proj";
  std::string_view mlp_norm = "post_attention_layernorm";
  std::string_view gate_proj = "mlp.gate_proj";
  std::string_view up_proj = "mlp.up_proj";
  std::string_view down_proj = "mlp.down_proj";

  using Flag = bool (*)(const io::ModelConfig&);
  Flag qkv_bias = nullptr;
  Flag o_bias = nullptr;
  Flag mlp_bias = nullptr;

  /// "model.layers.3.self_attn.q_proj".
  std::string in_layer(std::int64_t layer, std::string_view module) const;
};

/// The row of config.model_type. @throws InputError that lists the supported types.
const Architecture& find_architecture(const io::ModelConfig& config);

}  // namespace mrp::shard
