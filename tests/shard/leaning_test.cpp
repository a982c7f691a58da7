// The running means of margins: over all data ranks, by form, a quarter of the way a step.
#include "shard/train/leaning.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/utils.h>

#include <cmath>
#include <utility>

#include "dist/communicator.hpp"

namespace mrp::shard {
namespace {

TEST(Leaning, FollowsTheMeanMarginOfAllRanks) {
  const dist::Communicator world = dist::Communicator::world();
  Leaning leaning;
  // Rank r has r + 1 margins of r + 1, so that a mean of the ranks' means would be another one.
  double sum = 0, count = 0;
  for (int rank = 0; rank < world.size(); ++rank) {
    sum += (rank + 1) * (rank + 1);
    count += rank + 1;
  }
  const torch::Tensor own = torch::full({world.rank() + 1}, world.rank() + 1.0, torch::kFloat32);
  double expected = 0;
  for (int step = 0; step < 3; ++step) {
    leaning.penalty(AnswerForm::listed, own);
    leaning.update(world);
    expected += (sum / count - expected) / 4;
    EXPECT_NEAR(leaning.means()[1].item<double>(), expected, 1e-6);
  }
  leaning.update(world);  // nothing was noted
  EXPECT_NEAR(leaning.means()[1].item<double>(), expected, 1e-6);
  EXPECT_EQ(leaning.means()[0].item<double>(), 0);
  EXPECT_EQ(leaning.means()[2].item<double>(), 0);
}

TEST(Leaning, PushesAgainstTheMeanNotAgainstTheItem) {
  Leaning leaning;
  leaning.means().copy_(torch::tensor({0.0f, 0.02f, -3.0f}));
  for (const auto& [form, slope] :
       {std::pair(AnswerForm::letter, 0.0), std::pair(AnswerForm::listed, std::sqrt(0.5)),
        std::pair(AnswerForm::open, -1.0)}) {
    const torch::Tensor margins = torch::tensor({1.5f, -0.5f}).requires_grad_();
    leaning.penalty(form, margins).backward();
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(margins.grad()[i].item<double>(), slope, 1e-4);
  }
}

}  // namespace
}  // namespace mrp::shard
