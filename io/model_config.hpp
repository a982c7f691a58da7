// The part of a Hugging Face config.json that mrp understands.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace mrp::io {

/// Rotary embedding: "default", "linear", "dynamic" (treated as default up to the trained length)
/// and "llama3".
struct RopeConfig {
  std::string type = "default";
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  std::int64_t original_max_position = 8192;
};

struct ModelConfig {
  std::string model_type;
  std::int64_t hidden_size = 0;
  std::int64_t layers = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position = 0;
  std::optional<std::int64_t> sliding_window;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  double rms_norm_eps = 1e-6;
  std::string hidden_act = "silu";
  std::string dtype;  ///< "bfloat16", ...; empty when the file does not say
  RopeConfig rope;
  std::vector<std::int64_t> eos_token_ids;

  /// Reads config.json of transformers 4 and 5 forms. @throws InputError: missing or mistyped
  /// field, non-positive or inconsistent sizes, a quantised checkpoint (requantising would undo the
  /// edit), unsupported rope type. Whether `model_type` is supported is for shard's architecture
  /// table to say.
  static ModelConfig read(const std::filesystem::path& checkpoint_directory);
};

/// Only `model_type`: other families lack fields that ModelConfig::read asks for, so look here
/// first.
/// @throws InputError.
std::string read_model_type(const std::filesystem::path& checkpoint_directory);

}  // namespace mrp::io
