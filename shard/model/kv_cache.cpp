#include "shard/model/kv_cache.hpp"

#include <algorithm>

#include "dist/error.hpp"

namespace mrp::shard {

KvCache::KvCache(std::vector<std::int64_t> padding, std::int64_t capacity, torch::Device device)
    : batch_(static_cast<std::int64_t>(padding.size())), capacity_(capacity), device_(device) {
  const bool padded = std::ranges::any_of(padding, [](std::int64_t count) { return count > 0; });
  if (padded) padding_ = torch::tensor(padding, torch::kInt64).to(device);
}

torch::Tensor KvCache::begin_pass(std::int64_t count) {
  MRP_EXPECT(length_ + count <= capacity_, "the cache is full");
  count_ = count;
  const auto integers = torch::TensorOptions(torch::kInt64).device(device_);
  const torch::Tensor slots = torch::arange(length_, length_ + count, integers);
  mask_.reset();
  if (count > 1 || padding_.defined()) {
    const torch::Tensor seen = torch::arange(length_ + count, integers);
    const torch::Tensor own = slots.unsqueeze(1);
    mask_ = (seen <= own).view({1, 1, count, -1});
    // A padding slot sees itself: over no slot at all the softmax is NaN, which would spread.
    if (padding_.defined()) {
      mask_ = *mask_ & ((seen >= padding_.view({-1, 1, 1, 1})) | (seen == own));
    }
  }
  if (!padding_.defined()) return slots.view({1, 1, count});
  return (slots - padding_.view({-1, 1, 1})).clamp_min(0);
}

torch::Tensor KvCache::attend(std::int64_t layer, const torch::Tensor& query,
                              const torch::Tensor& key, const torch::Tensor& value) {
  const std::int64_t kv_heads = key.size(1);
  if (layer == static_cast<std::int64_t>(layers_.size())) {
    const std::vector<std::int64_t> shape = {batch_, kv_heads, capacity_, key.size(3)};
    layers_.push_back({torch::empty(shape, key.options()), torch::empty(shape, key.options())});
  }
  const Layer& held = layers_[static_cast<std::size_t>(layer)];
  held.keys.narrow(2, length_, count_).copy_(key);
  held.values.narrow(2, length_, count_).copy_(value);
  // The query heads of a kv head are further rows of its product: it is not repeated for them.
  const std::int64_t group = query.size(1) / kv_heads;
  std::optional<torch::Tensor> mask = mask_;
  if (mask) mask = mask->unsqueeze(2).expand({-1, -1, group, -1, -1}).flatten(2, 3);
  const torch::Tensor mixed = torch::scaled_dot_product_attention(
      query.unflatten(1, {kv_heads, group}).flatten(2, 3), held.keys.narrow(2, 0, length_ + count_),
      held.values.narrow(2, 0, length_ + count_), mask);
  return mixed.unflatten(2, {group, count_}).flatten(1, 2);
}

void KvCache::end_pass() {
  length_ += count_;
}

void KvCache::keep(const std::vector<std::int64_t>& rows) {
  const torch::Tensor kept = torch::tensor(rows, torch::kInt64).to(device_);
  for (Layer& layer : layers_) {
    layer.keys = layer.keys.index_select(0, kept);
    layer.values = layer.values.index_select(0, kept);
  }
  if (padding_.defined()) padding_ = padding_.index_select(0, kept);
  batch_ = static_cast<std::int64_t>(rows.size());
}

}  // namespace mrp::shard
