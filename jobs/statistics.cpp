#include "jobs/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>

namespace mrp::jobs {
namespace {

constexpr std::size_t kResamples = 1000;
constexpr std::uint64_t kSeed = 0;

/// Between the two nearest values, linearly. `sorted` ascends.
double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - std::floor(place));
}

/// max |i n − j m| where i of the m values `a` and j of the n values `b` are ≤ x. Both ascend.
std::int64_t largest_gap(const std::vector<double>& a, const std::vector<double>& b) {
  const std::int64_t m = std::ssize(a);
  const std::int64_t n = std::ssize(b);
  std::int64_t gap = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    const double x = std::min(*i, *j);
    i = std::upper_bound(i, a.end(), x);
    j = std::upper_bound(j, b.end(), x);
    gap = std::max(gap, std::abs((i - a.begin()) * n - (j - b.begin()) * m));
  }
  return gap;
}

/// Share of the monotone paths from (0, 0) to (m, n) that reach a point with |i n − j m| ≥ gap.
/// Only positive terms are added, so that small shares keep their digits.
long double outside_share(std::int64_t m, std::int64_t n, std::int64_t gap) {
  std::vector<long double> share(static_cast<std::size_t>(n) + 1, 0);  // up to (i, j), by j
  for (std::int64_t i = 0; i <= m; ++i) {
    for (std::int64_t j = 0; j <= n; ++j) {
      const auto at = static_cast<std::size_t>(j);
      if (std::abs(i * n - j * m) >= gap) {
        share[at] = 1;
      } else if (i + j > 0) {
        // A path to (i, j) comes from (i − 1, j) with probability i / (i + j).
        const long double from_left = j > 0 ? static_cast<long double>(j) * share[at - 1] : 0;
        share[at] =
            (static_cast<long double>(i) * share[at] + from_left) / static_cast<long double>(i + j);
      }
    }
  }
  return share.back();
}

}  // namespace

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Interval bootstrap_interval(std::span<const double> values) {
  std::mt19937_64 random(kSeed);
  std::vector<double> means(kResamples);
  for (double& resampled : means) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[random() % values.size()];
    resampled = sum / static_cast<double>(values.size());
  }
  std::ranges::sort(means);
  return {percentile(means, 0.025), percentile(means, 0.975)};
}

KolmogorovSmirnov kolmogorov_smirnov(std::vector<double> a, std::vector<double> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  const std::int64_t gap = largest_gap(a, b);
  const long double p = outside_share(std::ssize(a), std::ssize(b), gap);
  return {
      static_cast<double>(gap) / (static_cast<double>(a.size()) * static_cast<double>(b.size())),
      static_cast<double>(p), static_cast<double>(std::log10(p))};
}

double area_under_curve(std::span<const double> positives, std::vector<double> negatives) {
  std::ranges::sort(negatives);
  double wins = 0;
  for (const double score : positives) {
    const auto [first, last] = std::ranges::equal_range(negatives, score);
    wins += static_cast<double>(first - negatives.begin()) + static_cast<double>(last - first) / 2;
  }
  return wins / (static_cast<double>(positives.size()) * static_cast<double>(negatives.size()));
}

double harmonic_mean(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += 1 / value;
  return static_cast<double>(values.size()) / sum;
}

}  // namespace mrp::jobs
