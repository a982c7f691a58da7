// The few-pairs solver where its result is known: constructed spectra, and what must not be
// believed.
#include "solver/krylov.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "solver/dense.hpp"
#include "solver/few_pairs.hpp"
#include "solver/random.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::largest_angle;
using testing::on_every_grid;

constexpr std::int64_t n = 400;

// diag(values) turned by three reflections, and its eigenvectors.
struct Known {
  std::vector<double> values;
  Tall matrix, vectors;
};

// H a, H = I − 2 u uᵀ.
Tall reflected(Tall a, const Tall& u) {
  const Tall inside = cross(u, a);
  for (std::int64_t j = 0; j < a.columns; ++j) {
    for (std::int64_t i = 0; i < a.rows; ++i) a(i, j) -= 2 * u(i, 0) * inside(0, j);
  }
  return a;
}

Known with_values(std::vector<double> values) {
  std::sort(values.rbegin(), values.rend());
  const auto size = static_cast<std::int64_t>(values.size());
  Known known{values, Tall(size, size), Tall(size, size)};
  for (std::int64_t i = 0; i < size; ++i) known.vectors(i, i) = 1;
  for (std::uint64_t seed = 10; seed < 13; ++seed)
    known.vectors = reflected(known.vectors, orthonormal(random_normal(size, 1, seed)));
  Tall scaled = known.vectors;
  for (std::int64_t j = 0; j < size; ++j) {
    for (std::int64_t i = 0; i < size; ++i) scaled(i, j) *= values[static_cast<std::size_t>(j)];
  }
  gemm(Op::none, Op::transposed, size, size, size, 1, scaled.values.data(), size,
       known.vectors.values.data(), size, 0, known.matrix.values.data(), size);
  return known;
}

std::vector<double> power_law(double exponent) {
  std::vector<double> values;
  for (std::int64_t i = 1; i <= n; ++i)
    values.push_back(std::pow(static_cast<double>(i), -exponent));
  return values;
}

std::optional<KrylovPairs> solve(const BlacsGrid& grid, const Tall& matrix, std::int64_t k) {
  const DistMatrix a = scatter(grid, matrix, choose_block(grid, matrix.rows));
  return krylov_pairs(
      grid.comm(), [&](const Tall& x) { return product(a, x); }, matrix.rows, k);
}

void expect_pairs(const Known& known, const KrylovPairs& pairs, std::int64_t k) {
  ASSERT_EQ(static_cast<std::int64_t>(pairs.values.size()), k);
  const Tall image = multiply(known.matrix, pairs.vectors);
  const Tall unit = cross(pairs.vectors, pairs.vectors);
  const double size = std::max(std::abs(known.values.front()), std::abs(known.values.back()));
  for (std::int64_t j = 0; j < k; ++j) {
    const double value = pairs.values[static_cast<std::size_t>(j)];
    EXPECT_NEAR(value, known.values[static_cast<std::size_t>(j)], 1e-11 * size);
    for (std::int64_t i = 0; i < image.rows; ++i)
      EXPECT_NEAR(image(i, j), value * pairs.vectors(i, j), 1e-9 * size);
    for (std::int64_t i = 0; i < k; ++i) EXPECT_NEAR(unit(i, j), i == j ? 1 : 0, 1e-12);
  }
}

void expect_solved(const dist::Communicator& world, const Known& known, std::int64_t k) {
  on_every_grid(world, [&](const BlacsGrid& grid) {
    const auto pairs = solve(grid, known.matrix, k);
    ASSERT_TRUE(pairs.has_value());
    expect_pairs(known, *pairs, k);
  });
}

TEST(Krylov, SpectraOnEveryGrid) {
  const auto world = dist::Communicator::world();
  std::vector<double> planted = power_law(1);
  for (std::size_t i = 0; i < 8; ++i) planted[100 + i] = 0.5 + 0.1 * static_cast<double>(i);
  std::vector<double> shifted = power_law(1);  // the largest magnitudes are negative
  for (double& value : shifted) value -= 3;
  for (const auto& values : {power_law(1), power_law(2.5), planted, shifted}) {
    const Known known = with_values(values);
    on_every_grid(world, [&](const BlacsGrid& grid) {
      for (const std::int64_t k : {1, 7, 20}) {
        SCOPED_TRACE("k " + std::to_string(k));
        const auto pairs = solve(grid, known.matrix, k);
        ASSERT_TRUE(pairs.has_value());
        expect_pairs(known, *pairs, k);
        EXPECT_LT(largest_angle(pairs->vectors, leading_columns(known.vectors, k)), 1e-6);
      }
    });
  }
}

// More copies than a block has columns: the first result to converge has others in their place.
TEST(Krylov, NoCopyOfAMultipleEigenvalueIsMissed) {
  const auto world = dist::Communicator::world();
  for (const std::int64_t copies : {12, 20, 24}) {
    SCOPED_TRACE("copies " + std::to_string(copies));
    std::vector<double> values = power_law(0.5);
    for (double& value : values)
      value *= 0.25;  // so far below that rounding brings no copy in time
    for (std::int64_t i = 0; i < copies + 4; ++i)
      values[static_cast<std::size_t>(i)] = i < copies ? 2 : 1.9 - 0.01 * static_cast<double>(i);
    const Known known = with_values(values);
    expect_solved(world, known, 20);
  }
}

TEST(Krylov, NearlyDegenerateClusterAtK) {
  const auto world = dist::Communicator::world();
  for (const double spread : {0.0, 1e-13, 1e-10, 1e-7}) {
    SCOPED_TRACE("spread " + std::to_string(spread));
    std::vector<double> values = power_law(1);
    for (std::size_t i = 14; i < 26; ++i)
      values[i] = 0.06 * (1 + spread * static_cast<double>(26 - i));
    const Known known = with_values(values);
    on_every_grid(world, [&](const BlacsGrid& grid) {
      const auto pairs = solve(grid, known.matrix, 20);
      ASSERT_TRUE(pairs.has_value());
      expect_pairs(known, *pairs, 20);
      // What lies outside the cluster is determined, and nothing comes from below it.
      EXPECT_LT(
          largest_angle(leading_columns(pairs->vectors, 14), leading_columns(known.vectors, 14)),
          1e-6);
      const Tall below = cross(known.vectors, pairs->vectors);
      for (std::int64_t j = 0; j < 20; ++j) {
        for (std::int64_t i = 26; i < n; ++i) EXPECT_NEAR(below(i, j), 0, 1e-6);
      }
    });
  }
}

TEST(Krylov, ZeroAndRankDeficientMatrices) {
  const auto world = dist::Communicator::world();
  for (const std::size_t rank : {0U, 3U, 11U}) {
    SCOPED_TRACE("rank " + std::to_string(rank));
    std::vector<double> values(n, 0.0);
    for (std::size_t i = 0; i < rank; ++i) values[i] = 1 + static_cast<double>(i);
    const Known known = with_values(values);
    expect_solved(world, known, 9);
  }
}

TEST(Krylov, SameBitsEveryTimeAndOnEveryRank) {
  const auto world = dist::Communicator::world();
  const Known known = with_values(power_law(1));
  on_every_grid(world, [&](const BlacsGrid& grid) {
    const auto first = solve(grid, known.matrix, 5), second = solve(grid, known.matrix, 5);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->values, second->values);
    EXPECT_EQ(first->vectors.values, second->vectors.values);
    Tall of_root = first->vectors;
    world.broadcast(std::span<double>(of_root.values));
    EXPECT_EQ(of_root.values, first->vectors.values);
  });
}

TEST(Krylov, WhatIsNotFiniteIsGivenUp) {
  const auto world = dist::Communicator::world();
  Known known = with_values(power_law(1));
  known.matrix(3, 5) = known.matrix(5, 3) = NAN;
  on_every_grid(world, [&](const BlacsGrid& grid) {
    EXPECT_FALSE(solve(grid, known.matrix, 5).has_value());
  });
}

// An operator that is not symmetric has no such pairs: the iteration ends, or the check refuses.
TEST(FewPairs, AWrongResultIsNeverReturned) {
  const auto self = dist::Communicator::self();
  constexpr std::int64_t size = 1600;
  const auto shift = [](const Tall& x) {
    Tall y(x.rows, x.columns);
    for (std::int64_t j = 0; j < x.columns; ++j) {
      for (std::int64_t i = 1; i < x.rows; ++i) y(i, j) = x(i - 1, j);
    }
    return y;
  };
  EXPECT_FALSE(few_eigenpairs(self, shift, size, 4, "shift").has_value());
  // A symmetric one that lies once the iteration is over: only the check sees it.
  const auto diagonal = [](const Tall& x) {
    Tall y = x;
    for (std::int64_t j = 0; j < x.columns; ++j) {
      for (std::int64_t i = 0; i < x.rows; ++i)
        y(i, j) *= (x.columns == 4 ? 1.001 : 1) / static_cast<double>(i + 1);
    }
    return y;
  };
  EXPECT_FALSE(few_eigenpairs(self, diagonal, size, 4, "diagonal").has_value());
  EXPECT_TRUE(few_eigenpairs(self, diagonal, size, 5, "diagonal").has_value());
}

}  // namespace
}  // namespace mrp::solver
