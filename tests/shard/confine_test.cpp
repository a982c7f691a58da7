// Which directions a change may use, against their definitions.
#include "shard/train/confine.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace mrp::shard {
namespace {

torch::Tensor random_moments(std::int64_t width) {
  const torch::Tensor x = torch::randn({3 * width, width});
  return torch::matmul(x.t(), x);
}

double largest(const torch::Tensor& difference) {
  return difference.abs().max().item<double>();
}

TEST(ConfineTest, SoftFormIsSmallWhereTheMomentsAreLarge) {
  const torch::Tensor moments = torch::diag(torch::tensor({7.5, 0.4, 0.1, 0.0}));
  const Confinement s = soft_confinement(moments, 0.5);
  const torch::Tensor found = torch::eye(4) - torch::matmul(s.u * s.damping, s.u.t());
  const torch::Tensor scaled = torch::tensor({3.75, 0.2, 0.05, 0.0});
  EXPECT_LE(largest(found - torch::diag(torch::sqrt(0.5 / (scaled + 0.5)))), 1e-6);
}

TEST(ConfineTest, LowFormOfDiagonalMomentsTakesTheLargestRatios) {
  const torch::Tensor forget = torch::diag(torch::tensor({1.0, 4.0, 2.0, 1.0}));
  const torch::Tensor retain = torch::diag(torch::tensor({0.5, 6.0, 1.0, 0.5}));
  const torch::Tensor s = low_subspace(forget, retain, 3);
  const torch::Tensor expected = torch::diag(torch::tensor({1.0, 0.0, 1.0, 1.0}));
  EXPECT_LE(largest(torch::matmul(s, s.t()) - expected), 1e-6);
}

TEST(ConfineTest, LowFormIsAnInvariantSubspaceOfThePencil) {
  torch::manual_seed(1);
  const std::int64_t width = 12;
  const torch::Tensor forget = random_moments(width), retain = random_moments(width);
  const torch::Tensor s = low_subspace(forget, retain, 4);
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

}  // namespace
}  // namespace mrp::shard
