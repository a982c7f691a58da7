#include "shard/model/decoder_layer.hpp"

#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace mrp::shard {
namespace {

RmsNorm make_norm(const WeightReader& weights, const std::string& module,
                  const io::ModelConfig& config) {
  const std::int64_t width = config.hidden_size;
  return {weights.vector(module + ".weight", width, {0, width}), config.rms_norm_eps};
}

}  // namespace

DecoderLayer::DecoderLayer(const WeightReader& weights, const Architecture& architecture,
                           const io::ModelConfig& config, std::int64_t layer,
                           const TensorCollectives& collectives)
    : layer_(layer),
      input_norm_(
          make_norm(weights, architecture.in_layer(layer, architecture.input_norm), config)),
      attention_(weights, architecture, config, layer, collectives),
      mlp_norm_(make_norm(weights, architecture.in_layer(layer, architecture.mlp_norm), config)),
      mlp_(weights, architecture, config, layer, collectives) {}

torch::Tensor DecoderLayer::forward(torch::Tensor stream, const Placement& placement,
                                    const SiteHook& hook, const Site* last) const {
  torch::Tensor states;
  // Shows `value` to the hook; false at the last site.
  const auto visit = [&](SiteModule module, Side side, torch::Tensor value) {
    const Site site{layer_, module, side};
    std::optional<torch::Tensor> replaced;
    if (hook) replaced = hook(site, value);
    states = replaced ? *std::move(replaced) : std::move(value);
    return last == nullptr || *last != site;
  };
  const bool more =
      visit(SiteModule::qkv, Side::input, input_norm_.forward(stream)) &&
      visit(SiteModule::o_proj, Side::input, attention_.mix(states, placement, layer_)) &&
      visit(SiteModule::o_proj, Side::output, attention_.project(states));
  if (!more) return states;
  stream = stream + states;
  if (visit(SiteModule::gate_up, Side::input, mlp_norm_.forward(stream)) &&
      visit(SiteModule::down_proj, Side::input, mlp_.gated(states)) &&
      visit(SiteModule::down_proj, Side::output, mlp_.down(states))) {
    visit(SiteModule::stream, Side::output, stream + states);
  }
  return states;
}

void DecoderLayer::pack() {
  attention_.pack();
  mlp_.pack();
}

void DecoderLayer::add_parameters(const Architecture& architecture,
                                  const TensorCollectives* sharers, std::vector<Parameter>& all) {
  const auto add_norm = [&](RmsNorm& norm, const char* name, std::string_view module) {
    all.push_back(norm.parameter(fmt::format("layers.{}.{}", layer_, name),
                                 architecture.in_layer(layer_, module) + ".weight"));
  };
  add_norm(input_norm_, "input_norm", architecture.input_norm);
  attention_.add_parameters(layer_, sharers, all);
  add_norm(mlp_norm_, "mlp_norm", architecture.mlp_norm);
  mlp_.add_parameters(layer_, all);
}

}  // namespace mrp::shard
