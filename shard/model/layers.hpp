// The decoder layers of a model: all in memory, or one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <vector>

#include "dist/partition.hpp"
#include "shard/model/decoder_layer.hpp"

namespace mrp::shard {

enum class Residency {
  full,  ///< all layers
  layer  ///< the one that computes, and the next, which is read meanwhile
};

/// Nothing here is collective.
class Layers {
 public:
  using Read = std::function<DecoderLayer(std::int64_t layer)>;

  /// With `full`, reads all layers now; else `read` is called later, from a thread of its own.
  Layers(Read read, std::int64_t count, Residency residency);

  std::int64_t count() const { return count_; }
  /// The ranges of layers that are in memory together, in order: all layers; or an empty range, for
  /// what comes before the first layer, and each layer.
  std::vector<dist::Range> groups() const;
  /// Makes `group` the one in memory and begins to read the next. @throws what `read` throws.
  void load(dist::Range group);

  /// @pre it is in memory.
  DecoderLayer& operator[](std::int64_t layer);
  const DecoderLayer& operator[](std::int64_t layer) const;

 private:
  Read read_;
  std::int64_t count_;
  Residency residency_;
  std::int64_t first_ = 0;  // of those in memory
  std::vector<DecoderLayer> resident_;
  std::future<DecoderLayer> next_;
};

}  // namespace mrp::shard
