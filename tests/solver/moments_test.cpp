// Moments and random divisions against plain loops over the states.
#include "solver/moments.hpp"

#include <gtest/gtest.h>

#include <map>

#include "solver/random.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::largest_difference;
using testing::MemoryStates;
using testing::normal_states;
using testing::on_every_grid;

// All rows of the pool as a [width × rows] matrix: one state a column.
Tall whole(const Pool& pool) {
  std::vector<float> values(static_cast<std::size_t>(pool.rows() * pool.width()));
  pool.read({0, pool.rows()}, {0, pool.width()}, values);
  Tall result(pool.width(), pool.rows());
  result.values.assign(values.begin(), values.end());
  return result;
}

TEST(Moments, CovarianceAndGramAreSumsOverStates) {
  const auto world = dist::Communicator::world();
  const MemoryStates forget = normal_states(1, 23, 41), retain = normal_states(2, 30, 41);
  const Pool pool(forget, retain);
  RowMask mask(53, 0);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 1;
  const Tall x = whole(pool);
  Tall covariance(41, 41), grams(53, 53);
  for (std::int64_t row = 0; row < 53; ++row) {
    for (std::int64_t i = 0; i < 41; ++i) {
      for (std::int64_t j = 0; j < 41; ++j) {
        if (mask[static_cast<std::size_t>(row)] != 0) covariance(i, j) += x(i, row) * x(j, row);
      }
    }
    for (std::int64_t other = 0; other < 53; ++other) {
      for (std::int64_t i = 0; i < 41; ++i) grams(row, other) += x(i, row) * x(i, other);
    }
  }
  on_every_grid(world, [&](const BlacsGrid& grid) {
    for (const std::int64_t block : {2, 5, 64}) {
      EXPECT_LT(largest_difference(gather(covariance_sum(grid, pool, mask, block)).values,
                                   covariance.values),
                1e-12);
      EXPECT_LT(largest_difference(gather(gram(grid, pool, block)).values, grams.values), 1e-12);
    }
  });
}

TEST(Moments, ProductsWithStates) {
  const auto world = dist::Communicator::world();
  const MemoryStates forget = normal_states(3, 23, 41), retain = normal_states(4, 30, 41);
  const Pool pool(forget, retain);
  const Tall x = whole(pool), q = random_normal(41, 3, 1), u = random_normal(53, 3, 2);
  EXPECT_LT(largest_difference(states_times(world, pool, q).values, cross(x, q).values), 1e-12);
  EXPECT_LT(
      largest_difference(transposed_states_times(world, pool, u).values, multiply(x, u).values),
      1e-12);
}

TEST(Division, TakesWholeSequencesOfBothSetsInTheRightAmount) {
  const MemoryStates forget = normal_states(1, 120, 2, 0, {}, 4);
  const MemoryStates retain = normal_states(2, 360, 2, 0, {}, 3);
  const Pool pool(forget, retain);
  RowMask previous;
  for (std::uint64_t draw = 0; draw < 4; ++draw) {
    const RowMask mask = random_division(pool, draw);
    std::map<std::int64_t, int> side;
    std::int64_t from_forget = 0, from_retain = 0;
    for (std::size_t i = 0; i < mask.size(); ++i) {
      const auto [entry, added] = side.try_emplace(pool.sequences()[i], mask[i]);
      EXPECT_EQ(entry->second, mask[i]) << "sequence cut in two";
      (i < 120 ? from_forget : from_retain) += mask[i];
    }
    EXPECT_NEAR(static_cast<double>(from_forget), 30, 4);  // a quarter of each set
    EXPECT_NEAR(static_cast<double>(from_forget + from_retain), 120, 3);
    EXPECT_NE(mask, previous);
    previous = mask;
  }
}

}  // namespace
}  // namespace mrp::solver
