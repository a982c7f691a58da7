#include "shard/evaluate/token_metrics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace mrp::shard {

double extraction_strength(std::span<const bool> is_argmax) {
  const auto miss = std::find(is_argmax.rbegin(), is_argmax.rend(), false);
  return static_cast<double>(miss - is_argmax.rbegin()) / static_cast<double>(is_argmax.size());
}

double min_k(std::vector<double> values, double share) {
  // NaN has no order, which nth_element needs.
  if (std::ranges::any_of(values, [](double value) { return std::isnan(value); })) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const auto count = std::max<std::ptrdiff_t>(
      static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size())), 1);
  const auto end = values.begin() + count;
  std::nth_element(values.begin(), end - 1, values.end());
  return -std::accumulate(values.begin(), end, 0.0) / static_cast<double>(count);
}

}  // namespace mrp::shard
