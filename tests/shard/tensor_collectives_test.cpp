#include "shard/model/tensor_collectives.hpp"

#include <gtest/gtest.h>

#include "dist/communicator.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {
namespace {

class TensorCollectivesTest : public testing::Test {
 protected:
  dist::Communicator world_ = dist::Communicator::world();
  TensorCollectives ranks_{world_, torch::kCPU};
  const double size_ = world_.size();
};

TEST_F(TensorCollectivesTest, SumMinMaxKeepShapeAndType) {
  for (const auto type : {torch::kFloat32, torch::kInt64, torch::kBFloat16}) {
    const torch::Tensor own = torch::arange(6).reshape({2, 3}).to(type) + (world_.rank() + 1);
    const torch::Tensor base = torch::arange(6).reshape({2, 3}).to(type);
    const torch::Tensor sum = ranks_.all_reduce(own.clone());
    EXPECT_EQ(sum.scalar_type(), type);
    EXPECT_TRUE(torch::equal(sum, base * size_ + size_ * (size_ + 1) / 2));
    EXPECT_TRUE(torch::equal(ranks_.all_reduce(own.clone(), dist::ReduceOp::max), base + size_));
    EXPECT_TRUE(torch::equal(ranks_.all_reduce(own.clone(), dist::ReduceOp::min), base + 1));
  }
}

TEST_F(TensorCollectivesTest, StridedTensorsAreReducedByElement) {
  // Ranks may hold the same matrix in different orders.
  const torch::Tensor values = torch::arange(6.0f).reshape({3, 2});
  const torch::Tensor own = world_.rank() % 2 == 0 ? values.clone() : values.t().contiguous().t();
  EXPECT_TRUE(torch::equal(ranks_.all_reduce(own), values * size_));
}

TEST_F(TensorCollectivesTest, Bf16IsSummedInSinglePrecision) {
  // 256 has no neighbour at distance 1 in bf16: in bf16 the ones of other ranks would vanish.
  const float own = world_.rank() == 0 ? 256.0f : 1.0f;
  const torch::Tensor sum = ranks_.all_reduce(torch::full({3}, own).to(torch::kBFloat16));
  const auto exact = torch::full({3}, 256.0f + static_cast<float>(size_) - 1.0f);
  EXPECT_TRUE(torch::equal(sum, exact.to(torch::kBFloat16)));
}

TEST_F(TensorCollectivesTest, HostDeviceNeedsNoGpu) {
  EXPECT_EQ(local_device(torch::kCPU, world_), torch::Device(torch::kCPU));
  const auto dtype = default_compute_dtype(torch::kCPU);
  EXPECT_TRUE(dtype == torch::kBFloat16 || dtype == torch::kFloat32);
  EXPECT_EQ(default_compute_dtype(torch::kCUDA), torch::kBFloat16);
}

}  // namespace
}  // namespace mrp::shard
