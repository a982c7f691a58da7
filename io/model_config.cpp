#include "io/model_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/json.hpp"

namespace mrp::io {

using dist::InputError;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t max_size = std::numeric_limits<std::int32_t>::max();

std::string config_path(const fs::path& directory) {
  return (directory / "config.json").string();
}

json load(const fs::path& directory) {
  const auto source = config_path(directory);
  return parse_json(read_text(source, 16u << 20), source);
}

void refuse_quantised(const JsonObject& config, const std::string& source) {
  for (const std::string key : {"quantization_config", "compression_config"}) {
    if (!config.has(key)) continue;
    const auto settings = config.object(key);
    const auto method = settings.has("quant_method") ? settings.text("quant_method") : "unknown";
    throw InputError(fmt::format(
        "{}: {} (method {}) marks a quantised checkpoint; requantising would undo the edit, start "
        "from the unquantised weights",
        source, key, in_quotes(method)));
  }
}

/// `dtype` since transformers 5, `torch_dtype` before.
std::string read_dtype(const JsonObject& config, const std::string& source) {
  const std::string key = config.has("dtype") ? "dtype" : "torch_dtype";
  if (!config.has(key)) return {};
  auto name = config.text(key);
  if (name.starts_with("torch.")) name.erase(0, 6);
  constexpr std::array<std::string_view, 4> known = {"bfloat16", "float16", "float32", "float64"};
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  for (const std::string_view part : {"int", "float8", "float4", "fp8", "fp4"}) {
    if (name.find(part) == std::string::npos) continue;
    throw InputError(fmt::format(
        "{}: {} {} marks a quantised checkpoint; requantising would undo the edit, start from the "
        "unquantised weights",
        source, key, in_quotes(name)));
  }
  config.refuse(key, fmt::format("{}", fmt::join(known, ", ")));
}

double positive(const JsonObject& object, const std::string& key) {
  const double value = object.number(key);
  if (value <= 0) object.refuse(key, "a positive number");
  return value;
}

/// `factors` is the dictionary that holds type and factors: rope_parameters since transformers 5,
/// else rope_scaling.
void read_rope_scaling(const JsonObject& factors, std::int64_t max_position, RopeConfig& rope) {
  // "type" is the older name of the key.
  const std::string key = factors.has("rope_type") ? "rope_type" : "type";
  if (factors.has(key)) rope.type = factors.text(key);
  constexpr std::array<std::string_view, 4> known = {"default", "linear", "dynamic", "llama3"};
  if (std::find(known.begin(), known.end(), rope.type) == known.end()) {
    factors.refuse(key, fmt::format("{}", fmt::join(known, ", ")));
  }
  rope.original_max_position = max_position;
  const std::string trained = "original_max_position_embeddings";
  if (factors.has(trained) || rope.type == "llama3") {
    rope.original_max_position = factors.integer(trained, 1, max_size);
  }
  if (rope.type != "default") rope.factor = positive(factors, "factor");
  if (rope.type == "llama3") {
    rope.low_freq_factor = positive(factors, "low_freq_factor");
    rope.high_freq_factor = positive(factors, "high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      factors.refuse("high_freq_factor", "a number above low_freq_factor");
    }
  }
}

RopeConfig read_rope(const JsonObject& config, std::int64_t max_position) {
  RopeConfig rope;
  rope.original_max_position = max_position;
  const std::string key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (config.has("rope_theta")) rope.theta = positive(config, "rope_theta");
  for (const auto& place : {std::string(), key}) {
    if (!place.empty() && !config.has(place)) continue;
    const auto object = place.empty() ? config : config.object(place);
    if (object.has("partial_rotary_factor") && object.number("partial_rotary_factor") != 1.0) {
      object.refuse("partial_rotary_factor", "1.0 (partial rotation is not supported)");
    }
  }
  if (!config.has(key)) return rope;
  const auto factors = config.object(key);
  for (const auto& name : factors.keys()) {
    // One dictionary for each kind of attention layer.
    if (factors.find(name) != nullptr && factors.find(name)->is_object()) {
      config.refuse(key, "one set of parameters for all layers");
    }
  }
  if (factors.has("rope_theta")) rope.theta = positive(factors, "rope_theta");
  read_rope_scaling(factors, max_position, rope);
  return rope;
}

std::vector<std::int64_t> read_eos(const JsonObject& config) {
  const std::string key = "eos_token_id";
  const auto* value = config.find(key);
  if (value == nullptr) return {};
  std::vector<std::int64_t> ids;
  for (const auto& id : value->is_array() ? *value : json::array({*value})) {
    if (!id.is_number_integer() || id < 0 || id > max_size) {
      config.refuse(key, "a token id or a list of token ids");
    }
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

std::optional<std::int64_t> read_sliding_window(const JsonObject& config, const json& raw,
                                                const std::string& model_type) {
  if (config.has("use_sliding_window") && !config.boolean("use_sliding_window")) return {};
  if (config.has("sliding_window")) return config.integer("sliding_window", 1);
  // What transformers assumes for a Mistral without the key; with null there is no window.
  if (model_type == "mistral" && !raw.contains("sliding_window")) return 4096;
  return {};
}

void read_sizes(const JsonObject& config, ModelConfig& model) {
  const auto size = [&](const char* key) { return config.integer(key, 1, max_size); };
  model.hidden_size = size("hidden_size");
  model.layers = size("num_hidden_layers");
  model.intermediate_size = size("intermediate_size");
  model.heads = size("num_attention_heads");
  model.vocab_size = size("vocab_size");
  model.max_position = size("max_position_embeddings");
  const std::string kv = "num_key_value_heads";
  model.kv_heads = config.has(kv) ? size(kv.c_str()) : model.heads;
  if (model.heads % model.kv_heads != 0) {
    config.refuse(kv, fmt::format("a divisor of num_attention_heads, {}", model.heads));
  }
  if (config.has("head_dim")) {
    model.head_dim = size("head_dim");
  } else {
    if (model.hidden_size % model.heads != 0) {
      config.refuse("hidden_size", fmt::format("a multiple of num_attention_heads, {}, as there is "
                                               "no head_dim",
                                               model.heads));
    }
    model.head_dim = model.hidden_size / model.heads;
  }
  if (model.head_dim % 2 != 0) {
    config.refuse(config.has("head_dim") ? "head_dim" : "hidden_size",
                  "what gives an even number of channels per head, for the rotary embedding");
  }
}

}  // namespace

ModelConfig ModelConfig::read(const fs::path& checkpoint_directory) {
  const auto raw = load(checkpoint_directory);
  const auto source = config_path(checkpoint_directory);
  const JsonObject config(raw, source);
  ModelConfig model;
  model.model_type = config.text("model_type");
  if (config.has("text_config")) {
    throw InputError(
        fmt::format("{}: the language model is nested in text_config; multimodal "
                    "checkpoints are not supported",
                    source));
  }
  refuse_quantised(config, source);
  model.dtype = read_dtype(config, source);
  read_sizes(config, model);
  const auto flag = [&](const char* key, bool absent) {
    return config.has(key) ? config.boolean(key) : absent;
  };
  // transformers omits what equals the default of the family.
  model.tie_word_embeddings = flag("tie_word_embeddings", model.model_type.starts_with("gemma"));
  model.attention_bias = flag("attention_bias", false);
  model.mlp_bias = flag("mlp_bias", false);
  model.rms_norm_eps = positive(config, "rms_norm_eps");
  if (config.has("hidden_act")) model.hidden_act = config.text("hidden_act");
  model.sliding_window = read_sliding_window(config, raw, model.model_type);
  model.rope = read_rope(config, model.max_position);
  model.eos_token_ids = read_eos(config);
  return model;
}

std::string read_model_type(const fs::path& checkpoint_directory) {
  const auto raw = load(checkpoint_directory);
  return JsonObject(raw, config_path(checkpoint_directory)).text("model_type");
}

}  // namespace mrp::io
