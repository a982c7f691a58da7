// Contiguous, balanced parts of a range.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mrp::dist {

/// Half-open range of 64-bit indices.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const noexcept { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// Part `index` of `parts` of [0, total): sizes differ by at most one, larger parts first.
Range slice(std::int64_t total, std::int64_t parts, std::int64_t index);

/// Cuts [0, weights.size()) into `parts` contiguous ranges of nearly equal total weight.
std::vector<Range> balance(std::span<const std::int64_t> weights, std::int64_t parts);

}  // namespace mrp::dist
