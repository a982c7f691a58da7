#include "shard/model/layers.hpp"

#include <utility>

#include "dist/error.hpp"

namespace mrp::shard {

Layers::Layers(Read read, std::int64_t count, Residency residency)
    : read_(std::move(read)), count_(count), residency_(residency) {
  if (residency_ == Residency::layer) return;
  for (std::int64_t layer = 0; layer < count_; ++layer) resident_.push_back(read_(layer));
}

std::vector<dist::Range> Layers::groups() const {
  if (residency_ == Residency::full) return {{0, count_}};
  std::vector<dist::Range> groups{{0, 0}};
  for (std::int64_t layer = 0; layer < count_; ++layer) groups.push_back({layer, layer + 1});
  return groups;
}

void Layers::load(dist::Range group) {
  if (residency_ == Residency::full) return;
  resident_.clear();
  first_ = group.begin;
  if (group.size() > 0) resident_.push_back(next_.valid() ? next_.get() : read_(group.begin));
  if (group.end == count_) return;
  next_ = std::async(std::launch::async, read_, group.end);
}

DecoderLayer& Layers::operator[](std::int64_t layer) {
  MRP_EXPECT(layer >= first_ && layer < first_ + std::ssize(resident_));
  return resident_[static_cast<std::size_t>(layer - first_)];
}

const DecoderLayer& Layers::operator[](std::int64_t layer) const {
  MRP_EXPECT(layer >= first_ && layer < first_ + std::ssize(resident_));
  return resident_[static_cast<std::size_t>(layer - first_)];
}

}  // namespace mrp::shard
