// Which directions a change may use, against their definitions.
#include "jobs/confinement.hpp"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <limits>
#include <string>

#include "dist/error.hpp"

namespace mrp::jobs {
namespace {

using shard::Confinement;

torch::Tensor random_moments(std::int64_t width) {
  const torch::Tensor x = torch::randn({3 * width, width});
  return torch::matmul(x.t(), x);
}

double largest(const torch::Tensor& difference) {
  return difference.abs().max().item<double>();
}

torch::Tensor matrix(const Confinement& s) {
  return torch::eye(s.u.size(0)) - torch::matmul(s.u * s.damping, s.u.t());
}

/// By torch's eigensolver on one rank.
torch::Tensor expected(const torch::Tensor& moments, double softness) {
  const auto width = static_cast<double>(moments.size(0));
  const torch::Tensor wide = moments.to(torch::kFloat64);
  const auto [values, vectors] = torch::linalg_eigh(wide / wide.trace() * width);
  const torch::Tensor factors = torch::sqrt(softness / (values.clamp_min(0.0) + softness));
  return torch::matmul(vectors * factors, vectors.t()).to(torch::kFloat32);
}

class ConfinementTest : public ::testing::Test {
 protected:
  ConfinementTest() { torch::manual_seed(1); }

  torch::Tensor low(const torch::Tensor& forget, const torch::Tensor& retain, std::int64_t k) {
    return low_subspaces({forget}, {retain}, k, solvers_).at(0);
  }

  dist::Communicator world_ = dist::Communicator::world();
  Solvers solvers_{world_, std::uint64_t{1} << 30};
};

TEST_F(ConfinementTest, SoftFormIsSmallWhereTheMomentsAreLarge) {
  const torch::Tensor moments = torch::diag(torch::tensor({7.5, 0.4, 0.1, 0.0}));
  const torch::Tensor found = matrix(soft_confinements({moments}, 0.5, solvers_).at(0));
  const torch::Tensor scaled = torch::tensor({3.75, 0.2, 0.05, 0.0});
  EXPECT_LE(largest(found - torch::diag(torch::sqrt(0.5 / (scaled + 0.5)))), 1e-6);
}

// One problem is solved by all ranks together, several are dealt out.
TEST_F(ConfinementTest, SoftFormsOfOneAndOfSeveral) {
  for (const std::vector<std::int64_t>& widths :
       {std::vector<std::int64_t>{70}, {30, 64, 5, 64, 90, 1, 40}}) {
    std::vector<torch::Tensor> moments;
    for (const std::int64_t width : widths) moments.push_back(random_moments(width));
    const auto found = soft_confinements(moments, 0.1, solvers_);
    ASSERT_EQ(found.size(), widths.size());
    for (std::size_t i = 0; i < widths.size(); ++i) {
      EXPECT_LE(largest(matrix(found[i]) - expected(moments[i], 0.1)), 1e-5) << widths[i];
    }
  }
  EXPECT_TRUE(soft_confinements({}, 0.1, solvers_).empty());
}

TEST_F(ConfinementTest, OfWideMomentsTheLargestEighthCounts) {
  const std::int64_t width = 2056;
  const torch::Tensor values = torch::arange(width, 0, -1).to(torch::kFloat32);
  const Confinement s = soft_confinements({torch::diag(values)}, 0.1, solvers_).at(0);
  ASSERT_EQ(s.u.sizes(), (std::vector<std::int64_t>{width, 257}));
  const torch::Tensor expected = torch::sqrt(0.1 / (values / values.mean() + 0.1));
  const torch::Tensor found = torch::diagonal(matrix(s));
  EXPECT_LE(largest(found.slice(0, 0, 257) - expected.slice(0, 0, 257)), 1e-5);
  EXPECT_LE(largest(found.slice(0, 257) - 1), 1e-5);
}

TEST_F(ConfinementTest, MomentsOfNothingConfineNothing) {
  const torch::Tensor found =
      matrix(soft_confinements({torch::zeros({6, 6})}, 0.1, solvers_).at(0));
  EXPECT_EQ(largest(found - torch::eye(6)), 0);
}

TEST_F(ConfinementTest, MomentsThatAreNoNumbersAreNamed) {
  torch::Tensor moments = random_moments(6);
  moments[2][2] = std::numeric_limits<float>::quiet_NaN();
  try {
    soft_confinements({moments}, 0.1, solvers_);
    ADD_FAILURE() << "nothing thrown";
  } catch (const dist::NumericalError& error) {
    EXPECT_NE(std::string(error.what()).find("NaN or Inf"), std::string::npos);
  }
}

TEST_F(ConfinementTest, LowFormOfDiagonalMomentsTakesTheLargestRatios) {
  const torch::Tensor forget = torch::diag(torch::tensor({1.0, 4.0, 2.0, 1.0}));
  const torch::Tensor retain = torch::diag(torch::tensor({0.5, 6.0, 1.0, 0.5}));
  const torch::Tensor s = low(forget, retain, 3);
  const torch::Tensor expected = torch::diag(torch::tensor({1.0, 0.0, 1.0, 1.0}));
  EXPECT_LE(largest(torch::matmul(s, s.t()) - expected), 1e-6);
}

TEST_F(ConfinementTest, LowFormIsAnInvariantSubspaceOfThePencil) {
  const std::int64_t width = 12;
  const torch::Tensor forget = random_moments(width), retain = random_moments(width);
  const torch::Tensor s = low(forget, retain, 4);
  EXPECT_LE(largest(torch::matmul(s.t(), s) - torch::eye(4)), 1e-6);
  const auto scaled = [&](const torch::Tensor& m) { return m / m.trace() * double(width); };
  const torch::Tensor pencil =
      torch::linalg_solve(scaled(retain) + 1e-2 * torch::eye(width), scaled(forget));
  const torch::Tensor image = torch::matmul(pencil, s);
  EXPECT_LE(largest(image - torch::matmul(s, torch::matmul(s.t(), image))), 1e-4);
  // Nothing outside has a larger ratio.
  const auto [values, vectors] = torch::linalg_eig(pencil);
  const torch::Tensor all = std::get<0>(torch::real(values).sort());
  const torch::Tensor own = torch::real(torch::linalg_eigvals(torch::matmul(s.t(), image)));
  EXPECT_LE(largest(std::get<0>(own.sort()) - all.slice(0, width - 4)), 1e-4);
}

TEST_F(ConfinementTest, LowFormTakesNoMoreThanTheWidth) {
  const torch::Tensor s = low(random_moments(3), random_moments(3), 8);
  EXPECT_EQ(s.sizes(), (std::vector<std::int64_t>{3, 3}));
}

TEST_F(ConfinementTest, PatternsAreWhatTheDirectionsOfTheLowFormTellApart) {
  const std::int64_t width = 12;
  const torch::Tensor forget = random_moments(width), retain = 5 * random_moments(width);
  const auto [a, v] = low_projectors({forget}, {retain}, 4, solvers_).at(0);
  EXPECT_LE(largest(v - low(forget, retain, 4)), 1e-6);
  const torch::Tensor pencil = retain / retain.trace() * double(width) + 1e-2 * torch::eye(width);
  const torch::Tensor expected = torch::matmul(pencil, v);
  EXPECT_LE(largest(a - expected / torch::linalg_vector_norm(expected, 2, 0)), 1e-5);
}

}  // namespace
}  // namespace mrp::jobs
