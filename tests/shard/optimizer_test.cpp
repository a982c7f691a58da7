// AdamW and SGD against LibTorch's, on data ranks that share the state.
#include "shard/train/optimizer.hpp"

#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "dist/error.hpp"
#include "shard/batches.hpp"
#include "shard/golden_case.hpp"
#include "shard/train/trainer.hpp"
#include "shard/train_case.hpp"

namespace mrp::shard {
namespace {

constexpr double kRate = 3e-3;
constexpr double kSgdRate = 1;  // moves numbers by far more than their rounding
constexpr int kSteps = 5;

TrainableOptions all_weights() {
  TrainableOptions options;
  options.form = TrainForm::weights;
  options.everything = true;
  return options;
}

/// The same on every rank, and different in every step.
torch::Tensor gradient_of_step(std::int64_t count, int step) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(step) + 1);
  return torch::randn({count}, generator) * std::pow(10.0, step - 2);
}

class OptimizerTest : public testing::Test {
 protected:
  /// Steps on all data ranks, each of which has a part of the gradient; the values afterwards.
  torch::Tensor stepped(const OptimizerOptions& options, double rate) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout_, {});
    Trainable trainable(model, all_weights());
    Optimizer optimizer(trainable, layout_, options);
    const std::int64_t count = trainable.count();
    const torch::Tensor owner = torch::arange(count).remainder(world_.size());
    for (int step = 0; step < kSteps; ++step) {
      optimizer.zero_gradients();
      const torch::Tensor whole = gradient_of_step(count, step);
      optimizer.gradients().copy_(whole * (owner == world_.rank()));
      optimizer.reduce();
      EXPECT_NEAR(optimizer.step(rate), whole.norm().item<double>(),
                  1e-4 * whole.norm().item<double>());
    }
    // The leaves are views of the values.
    std::int64_t begin = 0;
    for (const Leaf& leaf : trainable.leaves()) {
      EXPECT_TRUE(torch::equal(leaf.value.flatten(),
                               optimizer.values().narrow(0, begin, leaf.value.numel())));
      begin += leaf.value.numel();
    }
    EXPECT_EQ(begin, count);
    return optimizer.values().clone();
  }

  /// The values before, and after the steps of an optimizer of LibTorch.
  template <class Reference, class Options>
  std::pair<torch::Tensor, torch::Tensor> reference(const Options& options, double clip) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout_, {});
    Trainable trainable(model, all_weights());
    std::vector<torch::Tensor> parts;
    for (const Leaf& leaf : trainable.leaves()) parts.push_back(leaf.value.detach().flatten());
    const torch::Tensor start = torch::cat(parts);
    torch::Tensor value = start.clone().requires_grad_();
    Reference optimizer(std::vector<torch::Tensor>{value}, options);
    for (int step = 0; step < kSteps; ++step) {
      value.mutable_grad() = gradient_of_step(value.numel(), step);
      if (clip > 0) torch::nn::utils::clip_grad_norm_(std::vector<torch::Tensor>{value}, clip);
      optimizer.step();
    }
    return {start, value.detach()};
  }

  static void expect_same_change(const torch::Tensor& found,
                                 const std::pair<torch::Tensor, torch::Tensor>& reference) {
    const auto& [start, expected] = reference;
    EXPECT_LT(test::relative_difference(found - start, expected - start), 1e-4);
  }

  dist::Communicator world_ = dist::Communicator::world();
  dist::ParallelLayout layout_{world_, 1};
  test::GoldenCase golden_{"grouped"};
};

TEST_F(OptimizerTest, AdamWEqualsThatOfLibTorch) {
  const auto options = torch::optim::AdamWOptions(kRate).weight_decay(0);
  for (const double clip : {0.0, 1.0}) {
    OptimizerOptions ours;
    ours.clip = clip;
    expect_same_change(stepped(ours, kRate), reference<torch::optim::AdamW>(options, clip));
  }
}

TEST_F(OptimizerTest, SgdEqualsThatOfLibTorch) {
  OptimizerOptions ours;
  ours.kind = OptimizerKind::sgd;
  expect_same_change(stepped(ours, kSgdRate),
                     reference<torch::optim::SGD>(torch::optim::SGDOptions(kSgdRate), 1.0));
}

TEST_F(OptimizerTest, AGradientThatIsNotFiniteMovesNothing) {
  CausalLM model(golden_.checkpoint(), golden_.config(), layout_, {});
  Trainable trainable(model, all_weights());
  Optimizer optimizer(trainable, layout_, {});
  const torch::Tensor before = optimizer.values().clone();
  if (world_.rank() == world_.size() - 1) optimizer.gradients()[7] = NAN;
  optimizer.reduce();
  EXPECT_THROW(optimizer.step(kRate), dist::NumericalError);
  EXPECT_TRUE(torch::equal(optimizer.values(), before));
}

/// Norm and values after steps on a real loss, over tensor ranks, against one rank.
class SplitOptimizerTest : public testing::TestWithParam<const char*> {};

TEST_P(SplitOptimizerTest, TheNormCountsEveryNumberOnce) {
  const test::GoldenCase golden(GetParam());
  const dist::Communicator world = dist::Communicator::world(), self = dist::Communicator::self();
  const auto sizes = legal_tensor_sizes(golden.config());
  if (std::count(sizes.begin(), sizes.end(), world.size()) == 0) return;
  const test::TrainCase data = test::train_case(golden.config().vocab_size);
  const Examples examples(data.set);
  const auto norms = [&](const dist::ParallelLayout& layout, const TrainableOptions& options) {
    CausalLM model(golden.checkpoint(), golden.config(), layout, {});
    Trainable trainable(model, options);
    Optimizer optimizer(trainable, layout, {});
    Trainer trainer(trainable, layout, 1000, 0);
    std::vector<double> found;
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_gradients();
      trainable.apply();
      trainer.accumulate(cross_entropy, examples, all_items(examples.count()), 1.0, step);
      optimizer.reduce();
      found.push_back(optimizer.step(kRate));
    }
    return found;
  };
  for (const TrainForm form : {TrainForm::weights, TrainForm::lora}) {
    TrainableOptions options;
    options.form = form;
    options.everything = form == TrainForm::weights;
    // A split site draws its start by rank: all start from what does not depend on it.
    if (form == TrainForm::lora) options.modules = {SiteModule::qkv, SiteModule::gate_up};
    const auto split = norms(dist::ParallelLayout(world, world.size()), options);
    const auto whole = norms(dist::ParallelLayout(self, 1), options);
    for (std::size_t step = 0; step < whole.size(); ++step) {
      EXPECT_NEAR(split[step], whole[step], 1e-3 * whole[step])
          << static_cast<int>(form) << " " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, SplitOptimizerTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mrp::shard
