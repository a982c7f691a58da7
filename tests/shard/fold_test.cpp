#include "shard/edit/fold.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "dist/error.hpp"
#include "shard/edit/orthonormal.hpp"
#include "shard/edit/tensor_fold.hpp"
#include "shard/edit_case.hpp"

namespace mrp::shard {
namespace {

using test::Matrix;

struct FoldCase {
  FoldSide side;
  bool oblique;
  std::int64_t rows, columns, k;
};

/// A tensor of `matrix` in `dtype`, with the folds of `subspaces`, folded block by block.
class FoldedTensor {
 public:
  FoldedTensor(const Matrix& matrix, io::DType dtype) : dtype_(dtype) {
    info_.name = "weights";
    info_.dtype = dtype;
    info_.shape = {matrix.rows, matrix.columns};
    bytes_ = test::to_bytes(matrix, dtype);
  }

  void add(const io::StoredSubspace& subspace, FoldSide side) {
    if (side == FoldSide::bias) info_.shape = {info_.shape[1]};
    subspaces_.sites[subspace.site] = subspace;
    edit_.folds.push_back({subspace.site, side});
  }

  Matrix original() const {
    const MatrixShape shape = matrix_shape(info_);
    return test::from_bytes(bytes_, dtype_, shape.rows, shape.columns);
  }

  /// In pieces of `step` rows or columns.
  Matrix fold(Rounding rounding, std::int64_t step = 1 << 20) {
    const MatrixShape shape = matrix_shape(info_);
    TensorFold fold(info_, edit_, subspaces_, rounding);
    std::vector<std::byte> original = bytes_;
    if (fold.needs_observation()) {
      fold.observe(0, {dtype_, shape.rows, shape.columns, original});
    }
    Matrix result = this->original();
    const std::int64_t across = fold.by_columns() ? shape.columns : shape.rows;
    removed_ = {};
    for (std::int64_t at = 0; at < across; at += step) {
      const std::int64_t count = std::min(step, across - at);
      Matrix block(fold.by_columns() ? shape.rows : count,
                   fold.by_columns() ? count : shape.columns);
      const std::int64_t row = fold.by_columns() ? 0 : at, column = fold.by_columns() ? at : 0;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        for (std::int64_t j = 0; j < block.columns; ++j) {
          block.at(i, j) = result.at(row + i, column + j);
        }
      }
      std::vector<std::byte> bytes = test::to_bytes(block, dtype_);
      const SquaredNorms norms = fold.fold(at, {dtype_, block.rows, block.columns, bytes});
      removed_.rows += norms.rows;
      removed_.columns += norms.columns;
      block = test::from_bytes(bytes, dtype_, block.rows, block.columns);
      for (std::int64_t i = 0; i < block.rows; ++i) {
        for (std::int64_t j = 0; j < block.columns; ++j) {
          result.at(row + i, column + j) = block.at(i, j);
        }
      }
    }
    return result;
  }

  /// Leak of `folded` by the library's meter, in blocks of 32 rows.
  double leak_of(const Matrix& folded) const {
    LeakMeter meter(info_, edit_, subspaces_);
    for (std::int64_t at = 0; at < folded.rows; at += 32) {
      Matrix block(std::min<std::int64_t>(32, folded.rows - at), folded.columns);
      for (std::int64_t i = 0; i < block.rows; ++i) {
        for (std::int64_t j = 0; j < block.columns; ++j) block.at(i, j) = folded.at(at + i, j);
      }
      std::vector<std::byte> bytes = test::to_bytes(block, dtype_);
      meter.add_rows(at, {dtype_, block.rows, block.columns, bytes});
    }
    return leak(removed_, meter.norms());
  }

 private:
  io::TensorInfo info_;
  io::DType dtype_;
  TensorEdit edit_;
  io::SubspaceFile subspaces_;
  std::vector<std::byte> bytes_;
  SquaredNorms removed_;
};

/// The same by dense matrices, straight from the definition of each side.
Matrix dense_fold(const Matrix& w, const io::StoredSubspace& subspace, FoldSide side) {
  const Matrix p = test::projector(subspace);
  switch (side) {
    case FoldSide::input:
      return test::multiply(w, p);
    case FoldSide::output:
      return test::multiply(p, w);
    case FoldSide::rows:
    case FoldSide::bias:
      return test::transpose(test::multiply(p, test::transpose(w)));
  }
  return w;
}

/// ‖folded − expected‖ / ‖w‖: a projector of full rank leaves nothing to compare with.
double error_of(const Matrix& folded, const Matrix& expected, const Matrix& w) {
  return test::distance(folded, expected) * test::norm(expected) / test::norm(w);
}

class FoldTest : public testing::TestWithParam<FoldCase> {};

TEST_P(FoldTest, EqualsTheDenseProjector) {
  const FoldCase& c = GetParam();
  std::mt19937_64 random(3);
  const std::int64_t width = c.side == FoldSide::output ? c.rows : c.columns;
  const auto subspace = test::random_subspace("site", width, c.k, c.oblique, random);
  FoldedTensor tensor(test::random_matrix(c.rows, c.columns, 0.02, random), io::DType::f32);
  tensor.add(subspace, c.side);
  const Matrix expected = dense_fold(tensor.original(), subspace, c.side);
  const Matrix folded = tensor.fold(Rounding::error_feedback);
  EXPECT_LE(error_of(folded, expected, tensor.original()), 1e-7);
  EXPECT_LE(tensor.leak_of(folded), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Sides, FoldTest,
                         testing::Values(FoldCase{FoldSide::input, false, 37, 53, 3},
                                         FoldCase{FoldSide::input, true, 48, 300, 11},
                                         FoldCase{FoldSide::output, false, 53, 37, 3},
                                         FoldCase{FoldSide::output, true, 300, 48, 11},
                                         FoldCase{FoldSide::rows, true, 21, 90, 8},
                                         FoldCase{FoldSide::bias, true, 1, 90, 8},
                                         FoldCase{FoldSide::input, true, 5, 9, 9}));

TEST(TensorFoldTest, BothSidesCommute) {
  std::mt19937_64 random(4);
  const auto input = test::random_subspace("input", 70, 6, true, random);
  const auto output = test::random_subspace("output", 45, 4, true, random);
  FoldedTensor tensor(test::random_matrix(45, 70, 0.02, random), io::DType::f32);
  tensor.add(input, FoldSide::input);
  tensor.add(output, FoldSide::output);
  const Matrix expected =
      dense_fold(dense_fold(tensor.original(), input, FoldSide::input), output, FoldSide::output);
  const Matrix folded = tensor.fold(Rounding::nearest, 16);
  EXPECT_LE(error_of(folded, expected, tensor.original()), 1e-7);
  EXPECT_LE(tensor.leak_of(folded), 1e-6);
}

TEST(TensorFoldTest, PiecesGiveTheBytesOfTheWhole) {
  std::mt19937_64 random(5);
  for (const FoldSide side : {FoldSide::input, FoldSide::output}) {
    FoldedTensor tensor(test::random_matrix(90, 90, 0.02, random), io::DType::bf16);
    tensor.add(test::random_subspace("site", 90, 5, true, random), side);
    const Matrix whole = tensor.fold(Rounding::error_feedback);
    EXPECT_EQ(tensor.fold(Rounding::error_feedback, 16).values, whole.values);
    EXPECT_EQ(tensor.fold(Rounding::error_feedback, 48).values, whole.values);
  }
}

TEST(TensorFoldTest, LeakIsTheDefinition) {
  std::mt19937_64 random(6);
  for (const FoldSide side : {FoldSide::input, FoldSide::output}) {
    const auto subspace = test::random_subspace("site", 90, 5, false, random);
    FoldedTensor tensor(test::random_matrix(90, 90, 0.02, random), io::DType::bf16);
    tensor.add(subspace, side);
    const Matrix folded = tensor.fold(Rounding::nearest);
    const auto size = [&](const Matrix& w) {
      return test::norm(side == FoldSide::input
                            ? test::multiply(w, test::side_a(subspace))
                            : test::multiply(test::transpose(test::side_b(subspace)), w));
    };
    const double expected = size(folded) / size(tensor.original());
    EXPECT_NEAR(tensor.leak_of(folded), expected, 1e-3 * expected);
  }
}

/// The message of the NumericalError that folding `matrix` throws.
std::string fold_error(Matrix matrix, io::DType dtype, FoldSide side, double scale_b = 1) {
  std::mt19937_64 random(8);
  auto subspace = test::random_subspace("site", 64, 3, false, random);
  for (double& x : subspace.b) x *= scale_b;
  FoldedTensor tensor(matrix, dtype);
  tensor.add(subspace, side);
  try {
    tensor.fold(Rounding::error_feedback);
  } catch (const dist::NumericalError& error) {
    return error.what();
  }
  return "no error";
}

TEST(TensorFoldTest, NamesTensorAndRowOfNonFiniteWeights) {
  std::mt19937_64 random(7);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    for (const io::DType dtype : {io::DType::bf16, io::DType::f16, io::DType::f32}) {
      for (const FoldSide side : {FoldSide::input, FoldSide::output}) {
        Matrix w = test::random_matrix(64, 64, 0.02, random);
        w.at(41, 7) = bad;
        EXPECT_THAT(fold_error(w, dtype, side), testing::HasSubstr("tensor weights, row 41:"));
      }
    }
  }
}

TEST(TensorFoldTest, RefusesResultsThatTheTypeCannotHold) {
  std::mt19937_64 random(7);
  const Matrix w = test::random_matrix(64, 64, 1000.0, random);
  EXPECT_EQ(fold_error(w, io::DType::f16, FoldSide::input, 1), "no error");
  EXPECT_THAT(fold_error(w, io::DType::f16, FoldSide::input, 1e4),
              testing::HasSubstr("larger than F16 can hold"));
}

TEST(FoldFactorsTest, AreAnOrthonormalFormOfTheSameProjector) {
  std::mt19937_64 random(9);
  const auto subspace = test::random_subspace("site", 60, 7, true, random);
  for (const FoldSide side : {FoldSide::input, FoldSide::output}) {
    const FoldFactors factors = make_factors(subspace, side);
    Matrix n(60, 7), m(60, 7);
    n.values = factors.n;
    m.values = factors.m;
    Matrix identity(7, 7);
    for (std::int64_t i = 0; i < 7; ++i) identity.at(i, i) = 1;
    EXPECT_LE(test::distance(test::multiply(test::transpose(n), n), identity), 1e-11);
    EXPECT_LE(test::distance(test::multiply(test::transpose(m), n), identity), 1e-9);
    const Matrix a = test::side_a(subspace), b = test::side_b(subspace);
    const Matrix expected = side == FoldSide::input ? test::multiply(a, test::transpose(b))
                                                    : test::multiply(b, test::transpose(a));
    EXPECT_LE(test::distance(test::multiply(n, test::transpose(m)), expected), 1e-11);
  }
}

TEST(OrthonormaliseTest, SurvivesBadConditioning) {
  std::mt19937_64 random(10);
  Matrix v = test::random_matrix(200, 6, 1.0, random);
  const std::vector<double> scales = {1e-20, 1, 1, 1, 1e-20, 1e30};
  for (std::int64_t i = 0; i < 200; ++i) {
    v.at(i, 4) = v.at(i, 0) + 1e-9 * v.at(i, 4);  // nearly dependent
    for (std::int64_t j = 0; j < 6; ++j) v.at(i, j) *= scales[static_cast<std::size_t>(j)];
  }
  Matrix q = v;
  Matrix r(6, 6);
  r.values = orthonormalise(q.values, 6, "site");
  const Matrix product = test::multiply(q, r);
  for (std::int64_t j = 0; j < 6; ++j) {
    for (std::int64_t i = 0; i < 200; ++i) {
      EXPECT_NEAR(product.at(i, j), v.at(i, j), 1e-12 * scales[static_cast<std::size_t>(j)]);
    }
  }
  Matrix identity(6, 6);
  for (std::int64_t i = 0; i < 6; ++i) identity.at(i, i) = 1;
  EXPECT_LE(test::distance(test::multiply(test::transpose(q), q), identity), 1e-11);
}

TEST(OrthonormaliseTest, RefusesDependentColumns) {
  std::mt19937_64 random(11);
  Matrix v = test::random_matrix(50, 4, 1.0, random);
  Matrix zero = v;
  for (std::int64_t i = 0; i < 50; ++i) {
    v.at(i, 3) = v.at(i, 1) - v.at(i, 0);
    zero.at(i, 2) = 0;
  }
  EXPECT_THROW(orthonormalise(v.values, 4, "site"), dist::NumericalError);
  EXPECT_THROW(orthonormalise(zero.values, 4, "site"), dist::NumericalError);
}

}  // namespace
}  // namespace mrp::shard
