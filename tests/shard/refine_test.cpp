// A training that ends early and goes on.
#include "shard/train/refine.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <vector>

#include "shard/golden_case.hpp"
#include "shard/train_case.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

constexpr std::int64_t kSaved = 50, kEnd = 53, kRounds = 2;

class RefineTest : public testing::Test {
 protected:
  struct Trained {
    torch::Tensor values;
    std::vector<RefineStep> steps;
    std::vector<std::int64_t> grown;  ///< after which steps projectors grew
  };

  /// Trains on this layout; `report` is called after each step.
  Trained train(
      const dist::ParallelLayout& layout, RefineOptions options,
      const std::function<void(std::int64_t)>& report = [](std::int64_t) {}) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
    TrainableOptions form;
    form.form = TrainForm::weights;
    form.modules = {SiteModule::down_proj};
    form.kernel = kRounds;
    Trainable trainable(model, form);
    options.state = state(layout);
    options.batch = 2;
    options.steps = kEnd;
    options.rounds = kRounds;
    Trained result;
    options.grow = [&](std::int64_t round) {
      std::map<Site, Projector> added;
      for (const auto& [site, grown] : trainable.grown()) {
        const torch::Tensor direction = torch::ones({grown.a.size(0), 1});
        direction[round] = 2.0;
        added[site] = {direction, direction};
      }
      trainable.grow(added, round);
      result.grown.push_back(result.steps.empty() ? -1 : result.steps.back().step);
    };
    const auto seen = [&](const RefineStep& step) {
      result.steps.push_back(step);
      report(step.step);
    };
    refine(trainable, layout, case_.set, golden_.token_set(), nullptr, options, seen);
    std::vector<torch::Tensor> parts;
    for (const Leaf& leaf : trainable.leaves()) parts.push_back(leaf.value.detach().flatten());
    result.values = torch::cat(parts);
    return result;
  }

  std::filesystem::path state(const dist::ParallelLayout& layout) const {
    return folder_.path() / ("state" + std::to_string(layout.tensor().size()));
  }
  void remove_state(const dist::ParallelLayout& layout) const {
    world_.barrier();
    if (world_.is_root()) std::filesystem::remove_all(state(layout));
    world_.barrier();
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
  test::GoldenCase golden_{"grouped"};
  test::TrainCase case_ = test::train_case(golden_.config().vocab_size);
};

TEST_F(RefineTest, GoesOnWhereItWasSavedAsIfItHadNotEnded) {
  for (const int size : std::set{1, world_.size()}) {
    const dist::ParallelLayout layout(world_, size);
    const auto interrupt = [](std::int64_t step) {
      if (step == kSaved + 1) throw std::runtime_error("the end");
    };
    EXPECT_THROW(train(layout, {}, interrupt), std::runtime_error);
    const Trained rest = train(layout, {});
    ASSERT_EQ(rest.steps.size(), static_cast<std::size_t>(kEnd - kSaved));
    EXPECT_EQ(rest.steps.front().step, kSaved);
    remove_state(layout);
    const Trained whole = train(layout, {});
    ASSERT_EQ(whole.steps.size(), static_cast<std::size_t>(kEnd));
    EXPECT_THAT(whole.grown, testing::ElementsAre(-1, 24));
    EXPECT_TRUE(rest.grown.empty());
    EXPECT_TRUE(torch::equal(rest.values, whole.values));
    EXPECT_EQ(rest.steps.back().forget_loss, whole.steps.back().forget_loss);
  }
}

TEST_F(RefineTest, EndsAtTheTarget) {
  const dist::ParallelLayout layout(world_, 1);
  RefineOptions options;
  options.stop_below = 1e3;
  EXPECT_EQ(train(layout, options).steps.size(), 25U);
  options.stop_below = 1e-9;
  remove_state(layout);
  EXPECT_EQ(train(layout, options).steps.size(), static_cast<std::size_t>(kEnd));
}

TEST_F(RefineTest, TellsTheForgetLossWhatAnAttackDidNotLearn) {
  const dist::ParallelLayout layout(world_, world_.size());
  std::vector<bool> attacked;
  double learned = 0, hidden = 0;  // mean cross entropies at the attacked weights of the last step
  RefineOptions options;
  options.forget_weight = options.tamper_weight = 0;
  options.forget_loss = [&](const LossContext& context, std::span<const std::int64_t> items) {
    attacked.push_back(context.attacked());
    if (context.attacked()) {
      EXPECT_THAT(context.hidden, testing::IsSupersetOf(items));
    }
    for (std::int64_t i = 0; context.attacked() && context.step == kEnd - 1 && i < 7; ++i) {
      const torch::NoGradGuard no_grad;
      const double loss = cross_entropy(context, std::vector{i}).item<double>();
      const bool is_hidden = std::ranges::count(context.hidden, i) == 1;
      (is_hidden ? hidden : learned) += loss / (is_hidden ? 4 : 3);
    }
    return gradient_ascent(context, items);
  };
  train(layout, options);
  ASSERT_EQ(attacked.size(), static_cast<std::size_t>(2 * kEnd));
  for (std::size_t i = 0; i < attacked.size(); ++i) EXPECT_EQ(attacked[i], i % 2 == 1) << i;
  EXPECT_LT(learned + 1, hidden);
}

TEST_F(RefineTest, ForgetsAndKeeps) {
  const dist::ParallelLayout layout(world_, 1);
  RefineOptions options;
  options.forget_loss = gradient_ascent;
  options.learning_rate = 1e-2;
  const auto mean_of_last = [](const Trained& trained, double RefineStep::*loss) {
    double sum = 0;
    for (std::size_t i = trained.steps.size() - 10; i < trained.steps.size(); ++i) {
      sum += trained.steps[i].*loss / 10;
    }
    return sum;
  };
  const Trained both = train(layout, options);
  remove_state(layout);
  options.retain_weight = 0;
  const Trained alone = train(layout, options);
  EXPECT_LT(mean_of_last(both, &RefineStep::retain_loss),
            mean_of_last(alone, &RefineStep::retain_loss));
  EXPECT_LT(mean_of_last(alone, &RefineStep::forget_loss), both.steps.front().forget_loss);
  for (const RefineStep& step : both.steps) {
    EXPECT_FALSE(std::isnan(step.tamper_loss));
    EXPECT_TRUE(std::isnan(step.sample_loss));
  }
}

}  // namespace
}  // namespace mrp::shard
