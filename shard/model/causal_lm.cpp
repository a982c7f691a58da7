#include "shard/model/causal_lm.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <ATen/cpu/Utils.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/utils.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "shard/model/architecture.hpp"
#include "shard/model/decoder_layer.hpp"
#include "shard/model/kv_cache.hpp"
#include "shard/model/norm.hpp"
#include "shard/model/packed_weight.hpp"
#include "shard/model/parallel_embedding.hpp"
#include "shard/model/parallel_linear.hpp"
#include "shard/model/placement.hpp"
#include "shard/model/recompute.hpp"
#include "shard/model/rotary.hpp"
#include "shard/model/weights.hpp"
#include "shard/packing.hpp"

namespace mrp::shard {
namespace {

bool divides(const io::ModelConfig& config, std::int64_t size) {
  return config.heads % size == 0 && config.intermediate_size % size == 0 &&
         (config.kv_heads % size == 0 || size % config.kv_heads == 0) && config.vocab_size >= size;
}

}  // namespace

torch::ScalarType default_compute_dtype(torch::Device device) {
  if (device.is_cuda()) return torch::kBFloat16;
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto has = [&](const char* name) {
    const auto found = capabilities.find(name);
    return found != capabilities.end() && found->second.isBool() && found->second.toBool();
  };
  // Intel's AVX-512 has bf16 at half the rate of fp32; its AMX does not.
  const bool intel = capabilities.at("cpu_name").toStringRef().find("Intel") != std::string::npos;
  const bool fast = has("amx_bf16") || has("bf16") || (has("avx512_bf16") && !intel);
  return fast ? torch::kBFloat16 : torch::kFloat32;
}

std::vector<int> legal_tensor_sizes(const io::ModelConfig& config) {
  std::vector<int> sizes;
  for (int size = 1; size <= config.heads; ++size) {
    if (divides(config, size)) sizes.push_back(size);
  }
  return sizes;
}

void check_tensor_size(const io::ModelConfig& config, int tensor_size) {
  if (divides(config, tensor_size)) return;
  throw dist::UsageError(fmt::format(
      "a model with {} heads, {} key-value heads and intermediate size {} cannot be split over {} "
      "tensor ranks; legal tensor sizes are: {}",
      config.heads, config.kv_heads, config.intermediate_size, tensor_size,
      fmt::join(legal_tensor_sizes(config), ", ")));
}

void check_length(const io::ModelConfig& config, std::int64_t length) {
  if (length > config.max_position) {
    throw dist::InputError(
        fmt::format("a sequence of {} tokens is longer than the {} positions of the model; prepare "
                    "with a lower "
                    "max_tokens",
                    length, config.max_position));
  }
  if (config.sliding_window && length > *config.sliding_window) {
    throw dist::InputError(fmt::format(
        "a sequence of {} tokens is longer than the model's sliding window of {}, which is not "
        "supported; prepare with a lower max_tokens",
        length, *config.sliding_window));
  }
}

struct CausalLM::Impl {
  io::ModelConfig config;
  ModelOptions options;
  TensorCollectives collectives;
  std::optional<dist::Communicator> sharer_ranks;  // with the same kv heads, if there are others
  std::optional<TensorCollectives> sharers;
  dist::Range vocab_range;
  Rotary rotary;
  std::optional<ParallelEmbedding> embedding;
  std::optional<Layers> layers;
  std::optional<RmsNorm> final_norm;
  torch::Tensor head;  // [vocabulary slice × hidden]; undefined if it is the embedding

  Impl(const io::ModelConfig& model_config, const dist::ParallelLayout& layout,
       const ModelOptions& model_options)
      : config(model_config),
        options(model_options),
        collectives(layout.tensor(), model_options.device),
        vocab_range(dist::slice(config.vocab_size, layout.tensor().size(), layout.tensor().rank())),
        rotary(config, model_options.device) {
    const int sharing = collectives.size() / static_cast<int>(std::min<std::int64_t>(
                                                 config.kv_heads, collectives.size()));
    if (sharing == 1) return;
    sharer_ranks = layout.tensor().split(collectives.rank() / sharing, collectives.rank());
    sharers.emplace(*sharer_ranks, options.device);
  }

  /// Not collective.
  void read(const io::Checkpoint& checkpoint) {
    const torch::NoGradGuard no_grad;
    const Architecture& architecture = find_architecture(config);
    const WeightReader weights(checkpoint, options.device, options.dtype);
    const auto vocabulary = [&](std::string_view module) {
      return weights.matrix({fmt::format("{}.weight", module),
                             config.vocab_size,
                             config.hidden_size,
                             vocab_range,
                             {0, config.hidden_size}});
    };
    embedding.emplace(vocabulary(architecture.embedding), vocab_range, collectives);
    const std::int64_t count = options.layers < 0 ? config.layers : options.layers;
    MRP_EXPECT(count <= config.layers, "more layers asked for than the model has");
    const auto read_layer = [this, weights, &architecture](std::int64_t layer) {
      const torch::NoGradGuard no_grad_in_this_thread;
      DecoderLayer block(weights, architecture, config, layer, collectives);
      if (options.inference) block.pack();
      return block;
    };
    layers.emplace(read_layer, count, options.residency);
    if (!options.head) return;
    final_norm.emplace(weights.vector(fmt::format("{}.weight", architecture.final_norm),
                                      config.hidden_size, {0, config.hidden_size}),
                       config.rms_norm_eps);
    if (config.tie_word_embeddings) return;
    head = vocabulary(architecture.head);
    if (options.inference) head = pack_weight(head);
  }

  void load(dist::Range group) {
    if (options.residency == Residency::layer && group.size() > 0) embedding.reset();
    layers->load(group);
  }

  const torch::Tensor& head_weight() { return head.defined() ? head : embedding->weight(); }

  std::vector<Parameter> parameters() {
    const Architecture& architecture = find_architecture(config);
    std::vector<Parameter> all;
    const auto add_vocabulary = [&](const char* name, std::string_view module,
                                    torch::Tensor& value) {
      Parameter parameter;
      parameter.name = name;
      parameter.value = &value;
      parameter.blocks = {{fmt::format("{}.weight", module),
                           config.vocab_size,
                           config.hidden_size,
                           vocab_range,
                           {0, config.hidden_size}}};
      all.push_back(std::move(parameter));
    };
    add_vocabulary("embedding.weight", architecture.embedding, embedding->weight());
    for (std::int64_t layer = 0; layer < layers->count(); ++layer) {
      (*layers)[layer].add_parameters(architecture, sharers ? &*sharers : nullptr, all);
    }
    if (final_norm) {
      all.push_back(
          final_norm->parameter("final_norm", fmt::format("{}.weight", architecture.final_norm)));
    }
    if (head.defined()) add_vocabulary("head.weight", architecture.head, head);
    return all;
  }

  torch::Tensor embedded(const torch::Tensor& tokens) const {
    MRP_EXPECT(embedding.has_value(), "the embedding was released");
    return embedding->forward(tokens.to(options.device));
  }

  Placement placed(const torch::Tensor& positions) const {
    return {rotary.table(positions, options.dtype), {}, {}, nullptr};
  }

  torch::Tensor advance(torch::Tensor stream, dist::Range range, const Placement& placement,
                        const SiteHook& hook, const Site* last) const {
    for (std::int64_t layer = range.begin; layer < range.end; ++layer) {
      const auto run = [&block = (*layers)[layer], placement, hook, last](const torch::Tensor& x) {
        return block.forward(x, placement, hook, last);
      };
      // A hook may keep states with their history, which would be lost.
      stream = options.recompute_layers && !hook ? recompute(stream, run) : run(stream);
      if (last != nullptr && last->layer == layer) break;
    }
    return stream;
  }

  torch::Tensor advance(torch::Tensor stream, dist::Range range, const SiteHook& hook,
                        const Site* last) const {
    const auto integers = torch::TensorOptions(torch::kInt64).device(options.device);
    const torch::Tensor positions = torch::arange(stream.size(1), integers);
    return advance(std::move(stream), range, placed(positions), hook, last);
  }
};

CausalLM::CausalLM(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
                   const dist::ParallelLayout& layout, const ModelOptions& options) {
  dist::agree(layout.world(), [&] {
    find_architecture(config);
    check_tensor_size(config, layout.tensor().size());
  });
  at::set_num_threads(options.threads);
  impl_ = std::make_unique<Impl>(config, layout, options);
  dist::agree(layout.world(), [&] { impl_->read(checkpoint); });
}

CausalLM::~CausalLM() = default;

const io::ModelConfig& CausalLM::config() const {
  return impl_->config;
}
const ModelOptions& CausalLM::options() const {
  return impl_->options;
}
std::int64_t CausalLM::layers() const {
  return impl_->layers->count();
}
const TensorCollectives& CausalLM::collectives() const {
  return impl_->collectives;
}
dist::Range CausalLM::vocab_range() const {
  return impl_->vocab_range;
}

torch::Tensor CausalLM::hidden_states(const torch::Tensor& tokens, const SiteHook& hook) const {
  return impl_->advance(embed(tokens), {0, layers()}, hook, nullptr);
}

torch::Tensor CausalLM::hidden_states(const torch::Tensor& tokens, KvCache& cache) const {
  Placement placement = impl_->placed(cache.begin_pass(tokens.size(1)));
  placement.cache = &cache;
  torch::Tensor stream = impl_->advance(embed(tokens), {0, layers()}, placement, {}, nullptr);
  cache.end_pass();
  return stream;
}

torch::Tensor CausalLM::hidden_states(const PackedBatch& batch) const {
  if (!batch.seen.defined()) return hidden_states(batch.tokens);
  check_length(config(), batch.longest);
  const torch::Device device = options().device;
  Placement placement = impl_->placed(batch.positions.to(device).unsqueeze(1));
  placement.seen = batch.seen.to(device);
  placement.mask = seen_mask(placement.seen);
  return impl_->advance(impl_->embedded(batch.tokens), {0, layers()}, placement, {}, nullptr);
}

void CausalLM::visit_sites(const torch::Tensor& tokens, const SiteHook& hook,
                           const Site& last) const {
  MRP_EXPECT(last.layer < layers(), "the last site lies above the layers that were built");
  advance(embed(tokens), {0, layers()}, hook, last);
}

std::vector<dist::Range> CausalLM::layer_groups() const {
  return impl_->layers->groups();
}

void CausalLM::load(dist::Range group) {
  impl_->load(group);
}

torch::Tensor CausalLM::embed(const torch::Tensor& tokens) const {
  check_length(config(), tokens.size(1));
  return impl_->embedded(tokens);
}

torch::Tensor CausalLM::advance(torch::Tensor stream, dist::Range group, const SiteHook& hook,
                                const Site& last) const {
  return impl_->advance(std::move(stream), group, hook, &last);
}

torch::Tensor CausalLM::local_logits(const torch::Tensor& rows) const {
  MRP_EXPECT(options().head, "the model was built without its head");
  const torch::Tensor normed = copy_to_ranks(impl_->final_norm->forward(rows), impl_->collectives);
  return apply_weight(normed, impl_->head_weight()).to(torch::kFloat32);
}

std::vector<Parameter> CausalLM::parameters() {
  MRP_EXPECT(!options().inference, "packed weights cannot be trained");
  return impl_->parameters();
}

}  // namespace mrp::shard
