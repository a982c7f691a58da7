#include "dist/partition.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

TEST(Slice, PartsAreContiguousEvenAndLargestFirst) {
  for (const std::int64_t total : {0, 1, 5, 12, 13, 1000}) {
    for (const std::int64_t parts : {1, 2, 3, 4, 7, 20}) {
      std::int64_t end = 0;
      std::int64_t previous = total;
      for (std::int64_t index = 0; index < parts; ++index) {
        const Range part = slice(total, parts, index);
        EXPECT_EQ(part.begin, end);
        EXPECT_LE(part.size(), previous);
        EXPECT_LE(slice(total, parts, 0).size() - part.size(), 1);
        end = part.end;
        previous = part.size();
      }
      EXPECT_EQ(end, total);
    }
  }
}

TEST(Slice, CountsIn64Bits) {
  const std::int64_t total = (std::int64_t{1} << 40) + 1;
  EXPECT_EQ(slice(total, 3, 2).end, total);
  EXPECT_EQ(slice(total, 2, 0).size(), (std::int64_t{1} << 39) + 1);
}

TEST(Slice, RefusesPartsThatDoNotExist) {
  EXPECT_THROW(slice(10, 0, 0), ContractError);
  EXPECT_THROW(slice(10, 2, 2), ContractError);
  EXPECT_THROW(slice(10, 2, -1), ContractError);
  EXPECT_THROW(slice(-1, 2, 0), ContractError);
}

std::int64_t weight_of(const std::vector<std::int64_t>& weights, Range range) {
  return std::accumulate(weights.begin() + range.begin, weights.begin() + range.end,
                         std::int64_t{0});
}

TEST(Balance, CoversEverythingAndDiffersByAtMostOneItem) {
  std::mt19937_64 random(5);
  std::uniform_int_distribution<std::int64_t> weight(0, 1000);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<std::int64_t> weights(random() % 40);
    for (auto& value : weights) value = weight(random);
    const auto parts = static_cast<std::int64_t>(random() % 8 + 1);
    const auto ranges = balance(weights, parts);
    ASSERT_EQ(std::ssize(ranges), parts);
    const std::int64_t heaviest = weights.empty() ? 0 : std::ranges::max(weights);
    const std::int64_t total = weight_of(weights, {0, std::ssize(weights)});
    std::int64_t end = 0;
    for (const Range range : ranges) {
      EXPECT_EQ(range.begin, end);
      EXPECT_LE(range.begin, range.end);
      // Both cuts of a part lie within half an item of their ideal place.
      EXPECT_LE(std::abs(weight_of(weights, range) * parts - total), (heaviest + 2) * parts);
      end = range.end;
    }
    EXPECT_EQ(end, std::ssize(weights));
  }
}

TEST(Balance, EqualWeightsAreCutEvenly) {
  const std::vector<std::int64_t> weights(12, 5);
  for (const Range range : balance(weights, 4)) EXPECT_EQ(range.size(), 3);
}

TEST(Balance, WeightlessItemsAreKept) {
  const auto ranges = balance(std::vector<std::int64_t>(7, 0), 3);
  EXPECT_EQ(ranges.back().end, 7);
}

}  // namespace
}  // namespace mrp::dist
