#include "shard/model/fused.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/utils.h>

#include <functional>
#include <tuple>
#include <vector>

#include "shard/packing.hpp"

namespace mrp::shard {
namespace {

using Tensors = std::vector<torch::Tensor>;
using Function = std::function<Tensors(const Tensors&)>;

/// Value and gradients of a fixed random combination of the results.
std::pair<Tensors, Tensors> value_and_gradients(const Function& f, const Tensors& inputs) {
  Tensors leaves;
  for (const torch::Tensor& input : inputs)
    leaves.push_back(input.detach().clone().requires_grad_());
  Tensors values = f(leaves);
  torch::manual_seed(7);
  torch::Tensor sum = torch::zeros({}, torch::kFloat64);
  for (const torch::Tensor& value : values) {
    sum = sum + (value.to(torch::kFloat64) * torch::randn(value.sizes(), torch::kFloat64)).sum();
  }
  sum.backward();
  Tensors gradients;
  for (const torch::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
  return {values, gradients};
}

/// Relative; absolute where b is small.
double distance(const torch::Tensor& a, const torch::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  const torch::Tensor wide = b.to(torch::kFloat64);
  return (a.to(torch::kFloat64) - wide).norm().item<double>() / (1 + wide.norm().item<double>());
}

class FusedTest : public testing::TestWithParam<torch::ScalarType> {
 protected:
  torch::Tensor random(std::vector<std::int64_t> shape, double scale = 1) {
    torch::manual_seed(static_cast<std::uint64_t>(shape.back() + ++drawn_));
    return (torch::randn(shape) * scale).to(GetParam());
  }

  /// `fused` against the same formula in fp64.
  void expect_same(const Function& fused, const Function& formula, const Tensors& inputs) {
    const double bound = GetParam() == torch::kBFloat16 ? 1e-2 : 2e-6;
    Tensors exact;
    for (const torch::Tensor& input : inputs) exact.push_back(input.to(torch::kFloat64));
    const auto [values, gradients] = value_and_gradients(fused, inputs);
    const auto [wanted, wanted_gradients] = value_and_gradients(formula, exact);
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i].scalar_type(), GetParam());
      EXPECT_LT(distance(values[i], wanted[i]), bound) << "value " << i;
    }
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      EXPECT_LT(distance(gradients[i], wanted_gradients[i]), bound) << "gradient " << i;
    }
  }

  std::int64_t drawn_ = 0;
};

TEST_P(FusedTest, RmsNorm) {
  for (const std::int64_t width : {1, 7, 64, 259}) {
    expect_same([](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], 1e-5)}; },
                [](const Tensors& in) {
                  const torch::Tensor mean = in[0].square().mean(-1, true);
                  return Tensors{in[0] * torch::rsqrt(mean + 1e-5) * in[1]};
                },
                {random({3, 5, width}), random({width})});
  }
}

TEST_P(FusedTest, GatedSilu) {
  for (const double scale : {1.0, 30.0}) {
    expect_same([](const Tensors& in) { return Tensors{gated_silu(in[0])}; },
                [](const Tensors& in) {
                  const auto halves = in[0].chunk(2, -1);
                  return Tensors{torch::silu(halves[0]) * halves[1]};
                },
                {random({2, 9, 2 * 45}, scale)});
  }
}

TEST_P(FusedTest, GatedSiluOfHugeAndOfNonFiniteGates) {
  const auto inf = std::numeric_limits<double>::infinity();
  const torch::Tensor gates = torch::tensor({-1e30, -200.0, 200.0, 1e30, std::nan("")});
  const torch::Tensor y =
      gated_silu(torch::cat({gates, torch::ones({5}, gates.options())}).to(GetParam()))
          .to(torch::kFloat64);
  EXPECT_NEAR(y[0].item<double>(), 0, 1e-3);
  EXPECT_NEAR(y[1].item<double>(), 0, 1e-3);
  EXPECT_NEAR(y[2].item<double>(), 200, 1);
  EXPECT_NEAR(y[3].item<double>() / 1e30, 1, 1e-2);
  EXPECT_TRUE(std::isnan(y[4].item<double>()));
  EXPECT_LT(y[3].item<double>(), inf);
}

TEST_P(FusedTest, SplitAndRotate) {
  constexpr std::int64_t heads = 6, kv_heads = 2, dim = 10, length = 7;
  io::ModelConfig config;
  config.head_dim = dim;
  config.rope.theta = 100;
  const Rotary rotary(config, torch::kCPU);
  const torch::Tensor positions = torch::arange(length, torch::kInt64);
  const auto f = [&](const Tensors& in) {
    const auto parts =
        split_and_rotate(in[0], heads, kv_heads, rotary.table(positions, in[0].scalar_type()));
    return Tensors(parts.begin(), parts.end());
  };
  // fp64 takes LibTorch's operations.
  expect_same(f, f, {random({3, length, (heads + 2 * kv_heads) * dim})});
}

TEST_P(FusedTest, CausalSoftmax) {
  for (const std::int64_t length : {1, 5, 33}) {
    const auto f = [&](const Tensors& in) { return Tensors{causal_softmax(in[0], 0.3)}; };
    const auto formula = [&](const Tensors& in) {
      const torch::Tensor hidden =
          torch::ones({length, length}, torch::kBool).triu(1).repeat({2, 1});
      return Tensors{torch::softmax((in[0] * 0.3).masked_fill(hidden, -INFINITY), -1)};
    };
    expect_same(f, formula, {random({2, 3, 2 * length, length}, 4.0)});
  }
}

TEST_P(FusedTest, CausalSoftmaxOfAPackedBatch) {
  // A prefix of two slots with two branches; then a sequence alone; padding.
  const torch::Tensor one = torch::tensor(
      {{0, 0, 0}, {0, 0, 0}, {0, 2, 2}, {0, 2, 2}, {0, 2, 4}, {5, 5, 5}, {5, 5, 5}, {0, 0, 7}},
      torch::kInt32);
  const torch::Tensor other = torch::zeros({8, 3}, torch::kInt32);
  const torch::Tensor seen = torch::stack({one, other});
  const char* rows[] = {"10000000", "11000000", "11100000", "11110000",
                        "11001000", "00000100", "00000110", "00000001"};
  torch::Tensor hidden = torch::ones({2, 8, 8}, torch::kBool);
  for (std::int64_t i = 0; i < 8; ++i) {
    for (std::int64_t j = 0; j < 8; ++j) {
      hidden[0][i][j] = rows[i][j] == '0';
      hidden[1][i][j] = j > i;
    }
  }
  EXPECT_TRUE(torch::equal(seen_mask(seen).squeeze(1), ~hidden));
  const auto f = [&](const Tensors& in) { return Tensors{causal_softmax(in[0], 0.3, seen)}; };
  const auto formula = [&](const Tensors& in) {
    const torch::Tensor x = (in[0] * 0.3).unflatten(-2, {3, 8});
    const torch::Tensor all = hidden.view({2, 1, 1, 8, 8});
    return Tensors{torch::softmax(x.masked_fill(all, -INFINITY), -1).flatten(-3, -2)};
  };
  const torch::Tensor scores = random({2, 5, 3 * 8, 8}, 4.0);
  expect_same(f, formula, {scores});
  const torch::Tensor exact = scores.to(torch::kFloat64);
  EXPECT_LT(distance(f({exact})[0], formula({exact})[0]), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Types, FusedTest, testing::Values(torch::kFloat32, torch::kBFloat16),
                         [](const auto& one) { return std::string(c10::toString(one.param)); });

}  // namespace
}  // namespace mrp::shard
