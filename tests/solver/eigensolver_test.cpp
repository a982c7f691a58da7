#include "solver/eigensolver.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "solver/dense.hpp"
#include "solver/dense_eigensolver.hpp"
#include "solver/elpa_eigensolver.hpp"
#include "solver/generalized.hpp"
#include "solver/lapack_eigensolver.hpp"
#include "solver/lower_solver.hpp"
#include "solver/random.hpp"
#include "solver/residuals.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::on_every_grid;

// Descending, with a cluster, a double value and negative ones.
std::vector<double> hard_values(int n) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) values.push_back(i < 2 ? 9.0 : 5.0 / (1 + i) - 0.2);
  values[5] = values[4] + 1e-11;
  std::sort(values.rbegin(), values.rend());
  return values;
}

// A matrix with known eigenvalues: Q diag(values) Qᵀ.
Tall with_eigenvalues(const std::vector<double>& values, std::uint64_t seed) {
  const auto n = static_cast<std::int64_t>(values.size());
  const Tall q = orthonormal(random_normal(n, n, seed));
  Tall scaled = q;
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = 0; i < n; ++i) scaled(i, j) *= values[static_cast<std::size_t>(j)];
  }
  Tall result(n, n);
  gemm(Op::none, Op::transposed, n, n, n, 1, scaled.values.data(), n, q.values.data(), n, 0,
       result.values.data(), n);
  return result;
}

void expect_pairs(const Tall& a, const EigenPairs& pairs, const std::vector<double>& expected) {
  const Tall vectors = gather(pairs.vectors);
  const auto k = vectors.columns;
  ASSERT_EQ(static_cast<std::int64_t>(pairs.values.size()), k);
  const Tall image = multiply(a, vectors), unit = cross(vectors, vectors);
  for (std::int64_t j = 0; j < k; ++j) {
    const double value = pairs.values[static_cast<std::size_t>(j)];
    EXPECT_NEAR(value, expected[static_cast<std::size_t>(j)], 1e-12 * std::abs(expected[0]));
    for (std::int64_t i = 0; i < vectors.rows; ++i) {
      EXPECT_NEAR(image(i, j), value * vectors(i, j), 1e-11 * std::abs(expected[0]));
    }
    for (std::int64_t i = 0; i < k; ++i) EXPECT_NEAR(unit(i, j), i == j ? 1 : 0, 1e-11);
  }
}

TEST(Eigensolver, FewAndAllPairs) {
  const auto world = dist::Communicator::world();
  const std::vector<double> values = hard_values(60);
  const Tall a = with_eigenvalues(values, 1);
  on_every_grid(world, [&](const BlacsGrid& grid) {
    for (const std::int64_t k : {1, 7, 31, 60}) {
      for (const std::int64_t block : {16, 64}) {
        SCOPED_TRACE("k " + std::to_string(k) + " block " + std::to_string(block));
        expect_pairs(a, top_eigenpairs(scatter(grid, a, block), k, "test matrix"), values);
        const auto alone = top_eigenvalues(scatter(grid, a, block), k, "test matrix");
        for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(alone[i], values[i], 1e-12 * 9);
        EXPECT_EQ(static_cast<std::int64_t>(alone.size()), k);
      }
    }
  });
}

#ifdef MRP_WITH_ELPA
TEST(Elpa, SolvesWhereEachRankHasAPart) {
  const auto world = dist::Communicator::world();
  const std::vector<double> values = hard_values(520);
  const Tall a = with_eigenvalues(values, 3);
  on_every_grid(world, [&](const BlacsGrid& grid) {
    for (const std::int64_t k : {1, 65, 520}) {
      SCOPED_TRACE("k " + std::to_string(k));
      const auto pairs = elpa_eigenpairs(scatter(grid, a, 64), k);
      ASSERT_TRUE(pairs);
      expect_pairs(a, *pairs, values);
      const auto alone = elpa_eigenvalues(scatter(grid, a, 64), k);
      ASSERT_TRUE(alone);
      ASSERT_EQ(static_cast<std::int64_t>(alone->size()), k);
      for (std::size_t i = 0; i < alone->size(); ++i)
        EXPECT_NEAR((*alone)[i], values[i], 1e-12 * 9);
    }
    // A rank without a part, unless there are few.
    const bool fits = grid.p() < 3 && grid.q() < 3;
    EXPECT_EQ(elpa_eigenpairs(scatter(grid, with_eigenvalues({2, 1}, 4), 1), 1).has_value(), fits);
  });
}

// Beyond the size from which the dense solver takes ELPA: eigenvalues next to those of the
// diagonal.
TEST(Elpa, SolvesTheLargeOnes) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 3072, k = 200;
  const BlacsGrid grid(world);
  DistMatrix lower(grid, n, n, 64);
  const auto rows = lower.row_indices(), columns = lower.column_indices();
  for (std::int64_t j = 0; j < lower.local_columns(); ++j) {
    for (std::int64_t i = 0; i < lower.local_rows(); ++i) {
      const auto row = static_cast<double>(rows[static_cast<std::size_t>(i)]);
      const auto column = static_cast<double>(columns[static_cast<std::size_t>(j)]);
      lower.at(i, j) = row < column    ? 7  // the upper triangle must not matter
                       : row == column ? row
                                       : 0.1 / (1 + row - column);
    }
  }
  DistMatrix whole = lower;
  mirror_lower(whole);
  const auto pairs = dense_eigenpairs(lower, k, "test matrix");
  EXPECT_LT(eigen_residual(whole, pairs.values, pairs.vectors), 1e-11);
  const auto alone = dense_eigenvalues(lower, k, "test matrix");
  EXPECT_LT(testing::largest_difference(alone, pairs.values), 1e-9);
  for (std::int64_t i = 0; i < k; ++i) {
    EXPECT_NEAR(alone[static_cast<std::size_t>(i)], static_cast<double>(n - 1 - i), 1);
  }
}
#else
TEST(Elpa, IsThere) {
  GTEST_SKIP() << "NOT TESTED: this build found no ELPA";
}
#endif

TEST(Eigensolver, MatricesSmallerThanTheGrid) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    for (std::int64_t n = 1; n <= 5; ++n) {
      std::vector<double> values;
      for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(n - i));
      const Tall a = with_eigenvalues(values, 2);
      const std::int64_t block = choose_block(grid, n);
      for (std::int64_t k = 1; k <= n; ++k) {
        SCOPED_TRACE("n " + std::to_string(n) + " k " + std::to_string(k));
        expect_pairs(a, top_eigenpairs(scatter(grid, a, block), k, "test matrix"), values);
      }
    }
  });
}

TEST(Generalized, PencilResidualAndNormalisation) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 45, k = 6;
  const Tall x = random_normal(n, n, 3), y = random_normal(2 * n, n, 4);
  const Tall a = cross(x, x), b = cross(y, y);
  on_every_grid(world, [&](const BlacsGrid& grid) {
    DistMatrix factor = scatter(grid, b, 8);
    cholesky(factor, "b");
    const auto pairs = top_pencil_pairs(scatter(grid, a, 8), factor, k, "test pencil");
    const Tall v = gather(pairs.vectors);
    const Tall av = multiply(a, v), bv = multiply(b, v), unit = cross(v, bv);
    for (std::int64_t j = 0; j < k; ++j) {
      for (std::int64_t i = 0; i < n; ++i) {
        EXPECT_NEAR(av(i, j), pairs.values[static_cast<std::size_t>(j)] * bv(i, j), 1e-9);
      }
      for (std::int64_t i = 0; i < k; ++i) EXPECT_NEAR(unit(i, j), i == j ? 1 : 0, 1e-10);
    }
    const auto alone = top_pencil_values(scatter(grid, a, 8), factor, k, "test pencil");
    EXPECT_LT(testing::largest_difference(alone, pairs.values), 1e-10);
  });
}

// B of several steps of substitution, on grids whose blocks do not divide a step.
TEST(LowerSolver, SolvesLikePdtrsm) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 1100;
  Tall b = random_normal(n, n, 5);
  for (std::int64_t i = 0; i < n; ++i) b(i, i) = 60;  // the strict upper triangle must not matter
  const Tall right = random_normal(n, 3, 6);
  on_every_grid(world, [&](const BlacsGrid& grid) {
    const DistMatrix l = scatter(grid, b, 24);
    const LowerSolver solver(l);
    for (const Op op : {Op::none, Op::transposed}) {
      DistMatrix expected = scatter(grid, right, 24);
      solve_lower(op, l, expected);
      EXPECT_LT(
          testing::largest_difference(solver.solve(op, right).values, gather(expected).values),
          1e-12);
    }
  });
}

// Large enough for the Krylov method, against the dense solver; ‖C v − λ B v‖ ≤ 1e-9 ‖C‖ ‖v‖.
TEST(Generalized, FewPairsOfALargePencil) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 1540, k = 4;
  Tall x = random_normal(n / 4, n, 3), y = random_normal(n, n, 4);
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = 0; i < n; ++i) y(i, j) /= std::sqrt(static_cast<double>(n * (j + 1)));
    for (std::int64_t i = 0; i < n / 4; ++i) x(i, j) /= std::sqrt(static_cast<double>(n));
    for (std::int64_t i = 0; i < 4; ++i) x(i, j) *= static_cast<double>(8 - i);
  }
  const Tall a = cross(x, x);
  Tall b = cross(y, y);
  for (std::int64_t i = 0; i < n; ++i) b(i, i) += 0.01;
  const BlacsGrid grid(world);
  DistMatrix factor = scatter(grid, b, 64), reduced = scatter(grid, a, 64);
  cholesky(factor, "b");
  const auto pairs = top_pencil_pairs(scatter(grid, a, 64), factor, k, "test pencil");
  reduce_to_standard(reduced, factor, "test pencil");
  const auto expected = dense_eigenvalues(reduced, k, "test pencil");
  EXPECT_LT(testing::largest_difference(pairs.values, expected), 1e-10 * expected[0]);
  const auto alone = top_pencil_values(scatter(grid, a, 64), factor, k, "test pencil");
  EXPECT_EQ(alone, pairs.values);
  const Tall v = gather(pairs.vectors);
  const Tall av = multiply(a, v), bv = multiply(b, v), unit = cross(v, bv);
  const double size = std::sqrt(trace_of_product(a, a));
  for (std::int64_t j = 0; j < k; ++j) {
    double residual = 0, length = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      residual += std::pow(av(i, j) - pairs.values[static_cast<std::size_t>(j)] * bv(i, j), 2);
      length += std::pow(v(i, j), 2);
    }
    EXPECT_LT(std::sqrt(residual / length), 1e-10 * size);
    for (std::int64_t i = 0; i < k; ++i) EXPECT_NEAR(unit(i, j), i == j ? 1 : 0, 1e-10);
  }
}

TEST(Residual, FindsOneWrongPairOfMany) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 90;
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(n - i));
  const Tall a = with_eigenvalues(values, 5);
  const BlacsGrid grid(world);
  const EigenPairs right = lapack_eigenpairs(scatter(grid, a, 8), n, "test matrix");
  const Tall vectors = gather(right.vectors);
  const auto residual = [&](const std::vector<double>& found, const Tall& of) {
    return eigen_residual(scatter(grid, a, 8), found, scatter(grid, of, 8));
  };
  EXPECT_LT(residual(right.values, vectors), 1e-11);
  std::vector<double> other = right.values;
  other[40] += 1e-3;
  EXPECT_GT(residual(other, vectors), 1e-7);
  Tall twice = vectors;  // an eigenvector, but another one's
  for (std::int64_t i = 0; i < n; ++i) twice(i, 41) = twice(i, 40);
  other = right.values;
  other[41] = other[40];
  EXPECT_GT(residual(other, twice), 1e-3);
  Tall nan = vectors;
  nan(3, 7) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(residual(right.values, nan), std::numeric_limits<double>::infinity());
}

// A cluster too wide for the blocks: the dense solver takes over.
TEST(Eigensolver, FallsBackToTridiagonalisation) {
  const auto world = dist::Communicator::world();
  constexpr std::int64_t n = 1540, k = 90;
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(1 + 1e-6 * static_cast<double>(n - i));
  const Tall a = with_eigenvalues(values, 1);
  const BlacsGrid grid(world);
  const auto pairs = top_eigenpairs(scatter(grid, a, 64), k, "test matrix");
  values.resize(k);
  EXPECT_LT(testing::largest_difference(pairs.values, values), 1e-12);
  EXPECT_LT(eigen_residual(scatter(grid, a, 64), pairs.values, pairs.vectors), 1e-11);
}

}  // namespace
}  // namespace mrp::solver
