#include "dist/partition.hpp"

#include <algorithm>
#include <numeric>

#include "dist/error.hpp"

namespace mrp::dist {

Range slice(std::int64_t total, std::int64_t parts, std::int64_t index) {
  MRP_EXPECT(total >= 0 && parts > 0 && index >= 0 && index < parts);
  const std::int64_t small = total / parts;
  const std::int64_t larger_parts = total % parts;
  const std::int64_t begin = index * small + std::min(index, larger_parts);
  return {begin, begin + small + (index < larger_parts ? 1 : 0)};
}

std::vector<Range> balance(std::span<const std::int64_t> weights, std::int64_t parts) {
  MRP_EXPECT(parts > 0);
  const auto n = static_cast<std::int64_t>(weights.size());
  const std::int64_t total = std::accumulate(weights.begin(), weights.end(), std::int64_t{0});
  std::vector<Range> ranges;
  std::int64_t begin = 0;
  std::int64_t before = 0;  // weight of [0, end)
  for (std::int64_t part = 1; part <= parts; ++part) {
    std::int64_t end = begin;
    // An item belongs to the part in which its middle lies.
    while (end < n &&
           (before + weights[static_cast<std::size_t>(end)] / 2) * parts < total * part) {
      before += weights[static_cast<std::size_t>(end++)];
    }
    if (part == parts) end = n;
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

}  // namespace mrp::dist
