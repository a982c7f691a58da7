#include "dist/parallel_layout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

TEST(ParallelLayout, NeighboursFormTensorGroups) {
  const auto world = Communicator::world();
  for (int tensor_size = 1; tensor_size <= world.size(); ++tensor_size) {
    if (world.size() % tensor_size != 0) continue;
    const ParallelLayout layout(world, tensor_size);
    EXPECT_EQ(&layout.world(), &world);
    EXPECT_EQ(layout.tensor().size(), tensor_size);
    EXPECT_EQ(layout.tensor().rank(), world.rank() % tensor_size);
    EXPECT_EQ(layout.data().size(), world.size() / tensor_size);
    EXPECT_EQ(layout.data().rank(), world.rank() / tensor_size);
    // The lowest world rank of the own tensor group and of the own data group.
    EXPECT_EQ(layout.tensor().all_reduce(world.rank(), ReduceOp::min),
              world.rank() - world.rank() % tensor_size);
    EXPECT_EQ(layout.data().all_reduce(world.rank(), ReduceOp::min), world.rank() % tensor_size);
  }
}

TEST(ParallelLayout, ImpossibleSizesNameTheLegalOnes) {
  const auto world = Communicator::world();
  for (const int tensor_size : {-1, 0, 3, world.size() + 1}) {
    if (tensor_size > 0 && world.size() % tensor_size == 0) continue;
    try {
      const ParallelLayout layout(world, tensor_size);
      ADD_FAILURE() << tensor_size;
    } catch (const UsageError& error) {
      const std::map<int, std::string> legal = {{1, "1"}, {2, "1, 2"}, {4, "1, 2, 4"}};
      EXPECT_THAT(error.what(), testing::EndsWith("legal values are " + legal.at(world.size())));
    }
  }
}

}  // namespace
}  // namespace mrp::dist
