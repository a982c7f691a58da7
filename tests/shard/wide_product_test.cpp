#include "shard/model/wide_product.hpp"

#include <gtest/gtest.h>
#include <torch/utils.h>

namespace mrp::shard {
namespace {

TEST(WideProduct, SumsAreNotRoundedToBf16) {
  torch::manual_seed(1);
  const auto x = torch::randn({3, 5, 300}).to(torch::kBFloat16);
  const auto weight = torch::randn({40, 300}).to(torch::kBFloat16);
  const auto exact = torch::matmul(x.to(torch::kFloat64), weight.to(torch::kFloat64).t());
  const auto found = wide_product(x, weight);
  ASSERT_EQ(found.sizes(), exact.sizes());
  ASSERT_EQ(found.scalar_type(), torch::kFloat32);
  EXPECT_LT((found - exact).abs().max().item<double>(), 1e-5 * exact.abs().max().item<double>());
}

TEST(WideProduct, TakesViewsAndNothing) {
  const auto x = torch::randn({6, 8}).to(torch::kBFloat16);
  const auto weight = torch::randn({4, 16}).to(torch::kBFloat16).narrow(1, 8, 8);
  const auto wide = torch::linear(x.to(torch::kFloat32), weight.to(torch::kFloat32));
  EXPECT_LT((wide_product(x.t().contiguous().t(), weight) - wide).abs().max().item<float>(), 1e-5);
  EXPECT_EQ(wide_product(x.narrow(0, 0, 0), weight).sizes(), (std::vector<std::int64_t>{0, 4}));
}

}  // namespace
}  // namespace mrp::shard
