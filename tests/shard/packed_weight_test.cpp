#include "shard/model/packed_weight.hpp"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cstdint>
#include <vector>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {
namespace {

torch::Tensor random_bf16(const std::vector<std::int64_t>& shape) {
  return torch::randn(shape).to(torch::kBFloat16);
}

/// Large enough to be packed, and no multiple of any block.
torch::Tensor large_weight() {
  return random_bf16({1031, 1021});
}

TEST(PackedWeight, LargeOnesArePackedWhereTheProcessorMultipliesBf16) {
  const bool fast = default_compute_dtype(torch::kCPU) == torch::kBFloat16;
  EXPECT_EQ(pack_weight(large_weight()).is_mkldnn(), fast);
  for (const torch::Tensor& kept :
       {large_weight().narrow(0, 0, 128), large_weight().to(torch::kFloat32)}) {
    EXPECT_TRUE(pack_weight(kept).is_same(kept));
  }
}

TEST(PackedWeight, ProductsAreThoseOfTheWeight) {
  torch::manual_seed(1);
  const torch::Tensor weight = large_weight(), packed = pack_weight(weight);
  const torch::Tensor bias = random_bf16({1031});
  const torch::Tensor wide = weight.to(torch::kFloat64);
  for (const std::vector<std::int64_t>& rows :
       std::vector<std::vector<std::int64_t>>{{1}, {3, 5}, {64}, {2, 111}, {0}}) {
    auto shape = rows;
    shape.push_back(1021);
    const torch::Tensor x = random_bf16(shape);
    const torch::Tensor exact = torch::matmul(x.to(torch::kFloat64), wide.t());
    for (const torch::Tensor& added : {torch::Tensor(), bias}) {
      const torch::Tensor expected = added.defined() ? exact + added : exact;
      const torch::Tensor found = apply_weight(x, packed, added);
      ASSERT_EQ(found.sizes(), expected.sizes());
      ASSERT_EQ(found.scalar_type(), torch::kBFloat16);
      if (found.numel() == 0) continue;
      // Rounded to 8 binary digits, and before the bias too where another product serves.
      EXPECT_LT(((found - expected).abs() / (expected.abs() + 1)).max().item<double>(), 0x1p-7);
    }
  }
}

}  // namespace
}  // namespace mrp::shard
