#include "shard/model/attention.hpp"

#include <cmath>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "shard/model/fused.hpp"

namespace mrp::shard {
namespace {

dist::Range times(dist::Range range, std::int64_t factor) {
  return {range.begin * factor, range.end * factor};
}

std::vector<ModuleRows> qkv_rows(const Architecture& architecture, const io::ModelConfig& config,
                                 std::int64_t layer, const HeadSlice& slice) {
  const std::int64_t dim = config.head_dim;
  const dist::Range query = times(slice.heads, dim);
  const dist::Range key = times(slice.kv_heads, dim);
  return {{architecture.in_layer(layer, architecture.q_proj), config.heads * dim, query},
          {architecture.in_layer(layer, architecture.k_proj), config.kv_heads * dim, key},
          {architecture.in_layer(layer, architecture.v_proj), config.kv_heads * dim, key}};
}

/// [batch × kv heads × …] → each kv head as often as query heads share it.
torch::Tensor repeat_heads(const torch::Tensor& states, std::int64_t times_each) {
  return times_each == 1 ? states : states.repeat_interleave(times_each, 1);
}

/// softmax(query keyᵀ / √head_dim) value over what each token sees: query and result [batch × heads
/// × length × head_dim], the others of kv heads.
torch::Tensor attend(const torch::Tensor& query, const torch::Tensor& key,
                     const torch::Tensor& value, const Placement& placement) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(query.size(-1)));
  // The fused kernel's gradient is several times slower than this on a processor.
  if (query.device().is_cpu() && query.requires_grad()) {
    // Heads that share a key stand below each other, as one matrix.
    const torch::Tensor rows = query.reshape({key.size(0), key.size(1), -1, key.size(3)});
    const torch::Tensor weights =
        causal_softmax(torch::matmul(rows, key.transpose(-1, -2)), scale, placement.seen);
    return torch::matmul(weights, value).view(query.sizes());
  }
  const std::int64_t shared = query.size(1) / key.size(1);
  const bool packed = placement.mask.defined();
  const auto mask = packed ? std::optional(placement.mask) : std::nullopt;
  return torch::scaled_dot_product_attention(query, repeat_heads(key, shared),
                                             repeat_heads(value, shared), mask, /*dropout_p=*/0.0,
                                             /*is_causal=*/!packed, scale);
}

}  // namespace

HeadSlice slice_heads(const io::ModelConfig& config, int tensor_size, int tensor_rank) {
  HeadSlice slice;
  slice.heads = dist::slice(config.heads, tensor_size, tensor_rank);
  if (config.kv_heads >= tensor_size) {
    slice.kv_heads = dist::slice(config.kv_heads, tensor_size, tensor_rank);
  } else {
    const std::int64_t kv_head = tensor_rank * config.kv_heads / tensor_size;
    slice.kv_heads = {kv_head, kv_head + 1};
  }
  return slice;
}

Attention::Attention(const WeightReader& weights, const Architecture& architecture,
                     const io::ModelConfig& config, std::int64_t layer,
                     const TensorCollectives& collectives)
    : slice_(slice_heads(config, collectives.size(), collectives.rank())),
      head_dim_(config.head_dim),
      qkv_(weights, qkv_rows(architecture, config, layer, slice_), config.hidden_size,
           architecture.qkv_bias(config), collectives),
      o_(weights, architecture.in_layer(layer, architecture.o_proj), config.hidden_size,
         config.heads * config.head_dim, times(slice_.heads, config.head_dim),
         architecture.o_bias(config), collectives) {}

torch::Tensor Attention::mix(const torch::Tensor& x, const Placement& placement,
                             std::int64_t layer) const {
  const auto [query, key, value] = split_and_rotate(qkv_.forward(x), slice_.heads.size(),
                                                    slice_.kv_heads.size(), placement.rotary);
  const torch::Tensor mixed = placement.cache != nullptr
                                  ? placement.cache->attend(layer, query, key, value)
                                  : attend(query, key, value, placement);
  return mixed.transpose(1, 2).flatten(2);
}

torch::Tensor Attention::project(const torch::Tensor& mixed_local) const {
  return o_.forward(mixed_local);
}

void Attention::pack() {
  qkv_.pack();
  o_.pack();
}

void Attention::add_parameters(std::int64_t layer, const TensorCollectives* sharers,
                               std::vector<Parameter>& all) {
  Parameter qkv;
  qkv.name = fmt::format("layers.{}.qkv", layer);
  qkv.input = Site{layer, SiteModule::qkv, Side::input};
  if (sharers != nullptr) {
    qkv.sharers = sharers;
    qkv.shared_rows = {slice_.heads.size() * head_dim_,
                       (slice_.heads.size() + 2 * slice_.kv_heads.size()) * head_dim_};
  }
  qkv_.add_parameters(qkv, all);
  Parameter o;
  o.name = fmt::format("layers.{}.o_proj", layer);
  o.input = Site{layer, SiteModule::o_proj, Side::input};
  o_.add_parameters(o, all);
}

}  // namespace mrp::shard
