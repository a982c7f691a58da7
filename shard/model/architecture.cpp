#include "shard/model/architecture.hpp"

#include <array>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

bool never(const io::ModelConfig&) {
  return false;
}
bool attention_flag(const io::ModelConfig& config) {
  return config.attention_bias;
}
bool mlp_flag(const io::ModelConfig& config) {
  return config.mlp_bias;
}

constexpr std::array kArchitectures = {
    Architecture{.model_type = "llama",
                 .qkv_bias = attention_flag,
                 .o_bias = attention_flag,
                 .mlp_bias = mlp_flag},
    Architecture{.model_type = "mistral", .qkv_bias = never, .o_bias = never, .mlp_bias = never},
};

}  // namespace

std::string Architecture::in_layer(std::int64_t layer, std::string_view module) const {
  return fmt::format("{}.{}.{}", layers, layer, module);
}

const Architecture& find_architecture(const io::ModelConfig& config) {
  std::vector<std::string_view> supported;
  for (const Architecture& row : kArchitectures) {
    if (row.model_type == config.model_type) return row;
    supported.push_back(row.model_type);
  }
  throw dist::InputError(fmt::format("model_type \"{}\" is not supported; supported are: {}",
                                     config.model_type, fmt::join(supported, ", ")));
}

}  // namespace mrp::shard
