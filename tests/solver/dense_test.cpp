// Distributed operations against the same ones done by plain loops on whole matrices.
#include "solver/dense.hpp"

#include <gtest/gtest.h>

#include "dist/error.hpp"
#include "solver/random.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::largest_difference;
using testing::on_every_grid;

constexpr std::int64_t n = 37;

Tall symmetric(std::uint64_t seed) {
  const Tall x = random_normal(n + 5, n, seed);
  return cross(x, x);
}

Tall transposed(const Tall& a) {
  Tall result(a.columns, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.columns; ++j) result(j, i) = a(i, j);
  }
  return result;
}

TEST(Dense, ScatterThenGatherChangesNothing) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    for (const std::int64_t block : {1, 4, 64}) {
      const Tall whole = random_normal(n, 11, 1);
      EXPECT_EQ(gather(scatter(grid, whole, block)).values, whole.values);
    }
  });
}

TEST(Dense, SelectPicksElements) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall whole = random_normal(n, n, 2);
    const std::vector<std::int64_t> rows{36, 0, 0, 7, 19, 20, 21}, columns{5, 4, 3, 30, 1};
    const Tall part = gather(select(scatter(grid, whole, 4), rows, columns));
    ASSERT_EQ(part.rows, 7);
    ASSERT_EQ(part.columns, 5);
    for (std::int64_t i = 0; i < part.rows; ++i) {
      for (std::int64_t j = 0; j < part.columns; ++j) {
        EXPECT_EQ(part(i, j),
                  whole(rows[static_cast<std::size_t>(i)], columns[static_cast<std::size_t>(j)]));
      }
    }
  });
}

TEST(Dense, ProductsAndMirror) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall a = random_normal(n, 12, 3), b = random_normal(n, 9, 4);
    DistMatrix c(grid, 12, 9, 4);
    multiply(Op::transposed, Op::none, 1, scatter(grid, a, 4), scatter(grid, b, 4), 0, c);
    EXPECT_LT(largest_difference(gather(c).values, cross(a, b).values), 1e-12);

    const Tall s = symmetric(5);
    EXPECT_LT(largest_difference(product(scatter(grid, s, 4), b).values, multiply(s, b).values),
              1e-11);

    // Products of BLAS need not be symmetric to the bit.
    Tall lower = s, both = s;
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t i = 0; i < j; ++i) {
        lower(i, j) = -1;
        both(i, j) = s(j, i);
      }
    }
    DistMatrix mirrored = scatter(grid, lower, 4);
    mirror_lower(mirrored);
    EXPECT_EQ(gather(mirrored).values, both.values);
  });
}

TEST(Dense, DiagonalAndShift) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall s = symmetric(6);
    DistMatrix d = scatter(grid, s, 3);
    shift_diagonal(d, 2.5);
    const auto values = diagonal(d);
    for (std::int64_t i = 0; i < n; ++i)
      EXPECT_EQ(values[static_cast<std::size_t>(i)], s(i, i) + 2.5);
    EXPECT_EQ(gather(d)(1, 0), s(1, 0));
  });
}

TEST(Dense, ProductsOfParts) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall s = random_normal(n, n, 14), v = random_normal(n, 3, 15);
    for (const Op op : {Op::none, Op::transposed}) {
      for (const dist::Range rows : {dist::Range{0, n}, {5, 30}, {9, 9}}) {
        for (const dist::Range columns : {dist::Range{0, n}, {17, 18}, {30, n}}) {
          Tall part(n, n);
          for (std::int64_t j = columns.begin; j < columns.end; ++j) {
            for (std::int64_t i = rows.begin; i < rows.end; ++i) part(i, j) = s(i, j);
          }
          const Tall expected = multiply(op == Op::none ? part : transposed(part), v);
          const Tall found = product(op, scatter(grid, s, 4), rows, columns, v);
          const dist::Range shown = op == Op::none ? rows : columns;
          ASSERT_EQ(found.rows, shown.size());
          for (std::int64_t j = 0; j < v.columns; ++j) {
            for (std::int64_t i = 0; i < found.rows; ++i)
              EXPECT_NEAR(found(i, j), expected(shown.begin + i, j), 1e-12);
          }
        }
      }
    }
  });
}

TEST(Dense, CholeskyAndSolvesInvert) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall s = symmetric(7), b = random_normal(n, 4, 8);
    DistMatrix factor = scatter(grid, s, 4);
    cholesky(factor, "test matrix");
    DistMatrix x = scatter(grid, b, 4);
    solve_lower(Op::none, factor, x);
    solve_lower(Op::transposed, factor, x);
    EXPECT_LT(largest_difference(multiply(s, gather(x)).values, b.values), 1e-9);
  });
}

TEST(Dense, ReductionHasThePencilsTrace) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    const Tall a = symmetric(9), b = symmetric(10);
    DistMatrix factor = scatter(grid, b, 4), reduced = scatter(grid, a, 4);
    cholesky(factor, "test matrix");
    reduce_to_standard(reduced, factor, "test pencil");
    DistMatrix inverse_times_a = scatter(grid, a, 4);
    solve_lower(Op::none, factor, inverse_times_a);
    solve_lower(Op::transposed, factor, inverse_times_a);
    double expected = 0, trace = 0;
    for (const double x : diagonal(inverse_times_a)) expected += x;
    for (const double x : diagonal(reduced)) trace += x;
    EXPECT_NEAR(trace, expected, 1e-8 * std::abs(expected));
  });
}

TEST(Dense, IndefiniteMatrixIsNamed) {
  const auto world = dist::Communicator::world();
  on_every_grid(world, [](const BlacsGrid& grid) {
    DistMatrix a = scatter(grid, symmetric(11), 4);
    shift_diagonal(a, -1e3);
    try {
      cholesky(a, "test matrix");
      ADD_FAILURE() << "nothing thrown";
    } catch (const dist::NumericalError& error) {
      EXPECT_NE(std::string(error.what()).find("test matrix"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find("potrf"), std::string::npos);
    }
  });
}

TEST(Dense, TooLargeForScalapackIsRefused) {
  const auto self = dist::Communicator::self();
  const BlacsGrid grid(self);
  EXPECT_THROW(DistMatrix(grid, 50000, 50000, 64), dist::ResourceError);
}

TEST(Tall, DivideAndOrthonormal) {
  const Tall a = random_normal(20, 4, 12), m = random_normal(4, 4, 13);
  EXPECT_LT(largest_difference(multiply(divide(a, m, "m"), m).values, a.values), 1e-12);
  const Tall q = orthonormal(a);
  const Tall unit = cross(q, q);
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 4; ++j) EXPECT_NEAR(unit(i, j), i == j ? 1 : 0, 1e-14);
  }
  EXPECT_LT(testing::largest_angle(a, q), 1e-13);
  EXPECT_THROW(divide(a, Tall(4, 4), "the zero matrix"), dist::NumericalError);
  EXPECT_EQ(transposed(transposed(a)).values, a.values);
}

}  // namespace
}  // namespace mrp::solver
