// What the steps of a training are made of.
#include "shard/train/trainer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "shard/batches.hpp"
#include "shard/golden_case.hpp"
#include "shard/train_case.hpp"

namespace mrp::shard {
namespace {

TEST(ItemStreamTest, EveryItemComesOnceBeforeAnyComesAgain) {
  ItemStream stream({3, 1, 4, 15, 9}, 7), again({3, 1, 4, 15, 9}, 7), other({3, 1, 4, 15, 9}, 8);
  std::vector<std::int64_t> drawn, differently;
  for (int n = 0; n < 10; ++n) {
    const auto three = stream.next(3);
    EXPECT_EQ(again.next(3), three);
    drawn.insert(drawn.end(), three.begin(), three.end());
    const auto others = other.next(3);
    differently.insert(differently.end(), others.begin(), others.end());
  }
  for (auto round = drawn.begin(); round != drawn.end(); round += 5) {
    EXPECT_THAT(std::vector<std::int64_t>(round, round + 5),
                testing::UnorderedElementsAre(1, 3, 4, 9, 15));
  }
  EXPECT_NE(drawn, differently);
  EXPECT_THAT(stream.next(0), testing::IsEmpty());
}

TEST(ScheduleTest, RisesAndFalls) {
  constexpr std::int64_t kSteps = 100;
  const auto at = [](std::int64_t step) { return scheduled(2.0, step, kSteps); };
  EXPECT_NEAR(at(0), 0.2, 1e-12);
  EXPECT_NEAR(at(4), 1.0 * (0.05 + 0.95 * 0.96), 1e-12);
  EXPECT_NEAR(at(40), 2.0 * (0.05 + 0.95 * 0.6), 1e-12);
  EXPECT_NEAR(at(99), 2.0 * (0.05 + 0.95 * 0.01), 1e-12);
  for (const std::int64_t step : {0, 49}) EXPECT_EQ(fading(step, kSteps), 1.0) << step;
  EXPECT_NEAR(fading(75, kSteps), 0.5, 1e-12);
  EXPECT_NEAR(fading(99, kSteps), 1.0 / 50, 1e-12);
}

class TrainerTest : public testing::Test {
 protected:
  /// Loss and gradient of one step, complete on every rank. Not over tensor ranks.
  std::pair<double, torch::Tensor> step(const dist::ParallelLayout& layout, const Loss& loss,
                                        std::int64_t batch_tokens, double weight) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
    TrainableOptions options;
    options.form = TrainForm::weights;
    Trainable trainable(model, options);
    Optimizer optimizer(trainable, layout, {});
    Trainer trainer(trainable, layout, batch_tokens, 11);
    trainable.apply();
    const std::vector<std::int64_t> items{6, 0, 3, 5, 1};
    const double value = trainer.accumulate(loss, examples_, items, weight, 2);
    optimizer.reduce();
    return {value, optimizer.gradients().clone()};
  }

  dist::Communicator world_ = dist::Communicator::world();
  dist::Communicator self_ = dist::Communicator::self();
  test::GoldenCase golden_{"grouped"};
  test::TrainCase case_ = test::train_case(golden_.config().vocab_size);
  Examples examples_{case_.set};
};

TEST_F(TrainerTest, NeitherDataRanksNorBatchesChangeAStep) {
  const dist::ParallelLayout shared(world_, 1), alone(self_, 1);
  for (const Loss& loss : {Loss(indifference), Loss(cross_entropy_and_match), Loss(rmu)}) {
    const auto [value, gradient] = step(alone, loss, 100'000, 1.0);
    EXPECT_GT(gradient.abs().max().item<double>(), 0.0);
    for (const std::int64_t batch_tokens : {1, 30, 100'000}) {
      const auto [other, others] = step(shared, loss, batch_tokens, 1.0);
      EXPECT_NEAR(other, value, 1e-5 * std::abs(value));
      EXPECT_LT(test::relative_difference(others, gradient), 1e-4);
    }
  }
}

TEST_F(TrainerTest, TheWeightScalesTheGradientAndNotTheLoss) {
  const dist::ParallelLayout shared(world_, 1);
  const auto [value, gradient] = step(shared, cross_entropy, 50, 0.01);
  const auto [same, twice] = step(shared, cross_entropy, 50, 0.02);
  EXPECT_EQ(value, same);
  EXPECT_LT(test::relative_difference(twice, 2 * gradient), 1e-5);
}

TEST_F(TrainerTest, FollowsHowTheModelLeansWithAndWithoutAnAttack) {
  golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout& layout) {
    TrainableOptions options;
    options.form = TrainForm::weights;
    Trainable trainable(model, options);
    trainable.apply();
    Trainer trainer(trainable, layout, 40, 0);
    const auto all = all_items(examples_.count());
    for (const auto& hidden : {std::vector<std::int64_t>(), all}) {
      const auto moved = [&](std::size_t i) {
        return trainer.state()[i].count_nonzero().item<int>();
      };
      EXPECT_EQ(moved(1), 0);
      trainer.accumulate(indifference, examples_, all, 1.0, 0, hidden);
      EXPECT_GT(moved(0), 0);
      EXPECT_EQ(moved(1) > 0, !hidden.empty());
    }
  });
}

TEST_F(TrainerTest, AnAttackMovesTheModelAndNotTheLeaves) {
  for (const int size : test::tensor_sizes(world_.size())) {
    const dist::ParallelLayout layout(world_, size), alone(self_, 1);
    const auto attacked = [&](const dist::ParallelLayout& on) {
      CausalLM model(golden_.checkpoint(), golden_.config(), on, {});
      TrainableOptions options;
      options.form = TrainForm::weights;
      Trainable trainable(model, options);
      Trainer trainer(trainable, on, 40, 0);
      const torch::Tensor leaf = trainable.leaves()[0].value.detach().clone();
      trainable.apply();
      const auto loss = [&] {
        const torch::NoGradGuard no_grad;
        return cross_entropy({&trainable, &examples_, 0, 0}, all_items(examples_.count()))
            .item<double>();
      };
      std::vector<double> losses{loss()};
      Attack attack = trainer.new_attack();
      for (int n = 0; n < 3; ++n) {
        trainable.apply();
        trainer.attack(examples_, all_items(examples_.count()), 2e-3, n, attack);
        losses.push_back(loss());
      }
      EXPECT_TRUE(torch::equal(trainable.leaves()[0].value.detach(), leaf));
      trainable.apply();
      EXPECT_NEAR(loss(), losses.front(), 1e-6 * losses.front());
      return losses;
    };
    const auto losses = attacked(layout), reference = attacked(alone);
    for (std::size_t n = 0; n < losses.size(); ++n) {
      EXPECT_NEAR(losses[n], reference[n], 1e-4 * reference[n]);
      if (n > 0) {
        EXPECT_LT(losses[n], losses[n - 1]);
      }
    }
  }
}

}  // namespace
}  // namespace mrp::shard
