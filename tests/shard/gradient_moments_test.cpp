// The moments of gradients that confine the outputs of linear layers, split over ranks, against
// gradients of one sequence after another.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "shard/golden_case.hpp"
#include "shard/train/examples.hpp"
#include "shard/train/pass.hpp"
#include "shard/train/second_moments.hpp"
#include "shard/train/trainable.hpp"
#include "shard/train_case.hpp"

namespace mrp::shard {
namespace {

class GradientMomentsTest : public testing::TestWithParam<const char*> {
 protected:
  dist::Communicator world_ = dist::Communicator::world();
  dist::Communicator self_ = dist::Communicator::self();
  test::GoldenCase golden_{GetParam()};

  /// By tensor of the checkpoint, G Gᵀ of the whole weight, all sequences in one sum.
  std::map<std::string, torch::Tensor> expected(const io::TokenSet& set) {
    const dist::ParallelLayout alone(self_, 1);
    CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
    TrainableOptions options;
    options.form = TrainForm::weights;
    Trainable trainable(model, options);
    for (Leaf& leaf : trainable.leaves()) leaf.value.mutable_grad() = torch::zeros_like(leaf.value);
    trainable.apply();
    const Examples examples(set);
    for (std::int64_t i = 0; i < examples.count(); ++i) {
      const Example example = examples.item(i);
      log_probability(run(model, std::span(&example, 1))).sum().backward();
    }
    trainable.collect();
    trainable.finish_gradients();
    std::map<std::string, torch::Tensor> moments;
    std::size_t leaf = 0;
    for (const Parameter& parameter : trainable.parameters()) {
      const torch::Tensor gradient = trainable.leaves()[leaf++].value.grad();
      std::int64_t row = 0;
      for (const WeightBlock& block : parameter.blocks) {
        const torch::Tensor g = gradient.narrow(0, row, block.rows.size());
        moments[block.tensor] = torch::matmul(g, g.t());
        row += block.rows.size();
      }
    }
    return moments;
  }
};

TEST_P(GradientMomentsTest, OfASliceAreABlockOfThoseOfTheWhole) {
  const auto sizes = legal_tensor_sizes(golden_.config());
  if (std::count(sizes.begin(), sizes.end(), world_.size()) == 0) return;
  // So few sequences that they are one batch.
  const io::TokenSet set = test::train_case(golden_.config().vocab_size).set;
  const auto whole = expected(set);
  const dist::ParallelLayout layout(world_, world_.size());
  CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const auto found = gradient_moments(model, layout, set, {}, 4096);
  std::size_t compared = 0;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input) continue;
    const auto& blocks = found.at(parameter.name);
    ASSERT_EQ(blocks.size(), parameter.blocks.size());
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const dist::Range rows = parameter.blocks[b].rows;
      const torch::Tensor all = whole.at(parameter.blocks[b].tensor);
      const torch::Tensor same =
          all.narrow(0, rows.begin, rows.size()).narrow(1, rows.begin, rows.size());
      const double largest = all.abs().max().item<double>();
      EXPECT_GT(largest, 0.0) << parameter.name;
      EXPECT_LE((blocks[b] - same).abs().max().item<double>(), 1e-4 * largest) << parameter.name;
      ++compared;
    }
    EXPECT_FALSE(parameter.value->requires_grad()) << parameter.name;
  }
  EXPECT_EQ(compared, whole.size());
}

TEST_P(GradientMomentsTest, OfChosenModules) {
  const dist::ParallelLayout alone(self_, 1);
  CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
  const io::TokenSet set = test::train_case(golden_.config().vocab_size).set;
  const auto found = gradient_moments(model, alone, set, {SiteModule::down_proj}, 4096);
  EXPECT_EQ(static_cast<std::int64_t>(found.size()), model.layers());
  EXPECT_TRUE(found.contains("layers.0.down_proj.weight"));
}

INSTANTIATE_TEST_SUITE_P(Golden, GradientMomentsTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mrp::shard
