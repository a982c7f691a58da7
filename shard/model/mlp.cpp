#include "shard/model/mlp.hpp"

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/error.hpp"
#include "dist/partition.hpp"
#include "shard/model/fused.hpp"

namespace mrp::shard {
namespace {

using Activation = torch::Tensor (*)(const torch::Tensor&);

/// activation(gate) ⊙ up of gate_up [… × 2n].
template <class Function>
torch::Tensor gated(const torch::Tensor& gate_up, Function activation) {
  const auto halves = gate_up.chunk(2, -1);
  return activation(halves[0]) * halves[1];
}

constexpr std::array<std::pair<std::string_view, Activation>, 3> kActivations = {{
    {"silu", gated_silu},
    {"gelu",
     [](const torch::Tensor& x) { return gated(x, [](const auto& g) { return torch::gelu(g); }); }},
    {"gelu_pytorch_tanh",
     [](const torch::Tensor& x) {
       return gated(x, [](const auto& g) { return torch::gelu(g, "tanh"); });
     }},
}};

Activation find_activation(const std::string& name) {
  std::vector<std::string_view> supported;
  for (const auto& [key, activation] : kActivations) {
    if (key == name) return activation;
    supported.push_back(key);
  }
  throw dist::InputError(fmt::format("hidden_act \"{}\" is not supported; supported are: {}", name,
                                     fmt::join(supported, ", ")));
}

dist::Range local_range(const io::ModelConfig& config, const TensorCollectives& collectives) {
  return dist::slice(config.intermediate_size, collectives.size(), collectives.rank());
}

}  // namespace

Mlp::Mlp(const WeightReader& weights, const Architecture& architecture,
         const io::ModelConfig& config, std::int64_t layer, const TensorCollectives& collectives)
    : activation_(find_activation(config.hidden_act)),
      gate_up_(weights,
               {{architecture.in_layer(layer, architecture.gate_proj), config.intermediate_size,
                 local_range(config, collectives)},
                {architecture.in_layer(layer, architecture.up_proj), config.intermediate_size,
                 local_range(config, collectives)}},
               config.hidden_size, architecture.mlp_bias(config), collectives),
      down_(weights, architecture.in_layer(layer, architecture.down_proj), config.hidden_size,
            config.intermediate_size, local_range(config, collectives),
            architecture.mlp_bias(config), collectives) {}

torch::Tensor Mlp::gated(const torch::Tensor& x) const {
  return activation_(gate_up_.forward(x));
}

torch::Tensor Mlp::down(const torch::Tensor& gated_local) const {
  return down_.forward(gated_local);
}

void Mlp::pack() {
  gate_up_.pack();
  down_.pack();
}

void Mlp::add_parameters(std::int64_t layer, std::vector<Parameter>& all) {
  Parameter gate_up;
  gate_up.name = fmt::format("layers.{}.gate_up", layer);
  gate_up.input = Site{layer, SiteModule::gate_up, Side::input};
  gate_up_.add_parameters(gate_up, all);
  Parameter down;
  down.name = fmt::format("layers.{}.down_proj", layer);
  down.input = Site{layer, SiteModule::down_proj, Side::input};
  down_.add_parameters(down, all);
}

}  // namespace mrp::shard
