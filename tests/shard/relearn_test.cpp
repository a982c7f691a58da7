// Attacks: rounding, halves of a set, and that they leave the model as it was.
#include "shard/train/relearn.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "dist/error.hpp"
#include "shard/golden_case.hpp"

namespace mrp::shard {
namespace {

TEST(QuantisedTest, RoundsToTheNearestOfFewLevels) {
  torch::manual_seed(2);
  torch::Tensor weight =
      torch::randn({5, 80}) * torch::pow(10.0, torch::arange(-2, 3)).unsqueeze(1);
  weight[2].slice(0, 32, 64).zero_();
  for (const auto& [bits, group] : {std::pair(8, 0), std::pair(4, 32), std::pair(4, 0)}) {
    const double levels = std::pow(2.0, bits - 1) - 1;
    const torch::Tensor rounded = quantised(weight, bits, group);
    const std::int64_t width = group == 0 ? 80 : group;
    for (std::int64_t begin = 0; begin < 80; begin += width) {
      const torch::Tensor part = weight.slice(1, begin, std::min<std::int64_t>(begin + width, 80));
      const torch::Tensor found =
          rounded.slice(1, begin, std::min<std::int64_t>(begin + width, 80));
      const torch::Tensor scale = part.abs().amax(1, true) / levels;
      EXPECT_TRUE(((found - part).abs() <= scale * 0.50001).all().item<bool>());
      const torch::Tensor level = (found / scale.clamp_min(1e-12)).round();
      EXPECT_TRUE(torch::allclose(found, level * scale, 1e-5, 1e-12));
      EXPECT_LE(level.abs().max().item<double>(), levels);
      // The largest number of a group is a level itself.
      EXPECT_TRUE(torch::allclose(found.abs().amax(1), part.abs().amax(1), 1e-5, 0));
    }
  }
}

TEST(QuantisedTest, KeepsTheType) {
  const torch::Tensor weight = torch::randn({3, 16}).to(torch::kBFloat16);
  EXPECT_EQ(quantised(weight, 8, 0).scalar_type(), torch::kBFloat16);
}

class RelearnTest : public testing::Test {
 protected:
  dist::Communicator world_ = dist::Communicator::world();
  test::GoldenCase golden_{"grouped"};
  io::TokenSet set_ = golden_.token_set();
};

TEST_F(RelearnTest, HalvesOfTheItems) {
  const Split split = split_items(set_, 5, 0), other = split_items(set_, 5, 1);
  EXPECT_EQ(split.known.size(), 4U);
  auto all = split.known;
  all.insert(all.end(), split.hidden.begin(), split.hidden.end());
  EXPECT_THAT(all, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(other.known, split.hidden);
  EXPECT_EQ(other.hidden, split.known);
  EXPECT_NE(split_items(set_, 6, 0).known, split.known);
  try {
    split_items(subset(set_, {0, 1, 2, 3, 4, 5, 6}), 5, 0);
    ADD_FAILURE() << "no error";
  } catch (const dist::InputError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("set forget has 7 items"));
  }
}

TEST_F(RelearnTest, ASubsetMeasuresAsItsItemsDo) {
  const dist::ParallelLayout layout(world_, 1);
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const auto whole = evaluate(model, layout, set_, 1000);
  const std::vector<std::int64_t> items{6, 1, 4};
  const auto part = evaluate(model, layout, subset(set_, items), 1000);
  ASSERT_EQ(part.per_item.size(), items.size());
  for (std::size_t n = 0; n < items.size(); ++n) {
    const ItemMetrics& one = part.per_item[n];
    const ItemMetrics& same = whole.per_item[static_cast<std::size_t>(items[n])];
    EXPECT_EQ(one.id, same.id);
    EXPECT_NEAR(one.nll, same.nll, 1e-5 * same.nll);
    EXPECT_EQ(one.letter_correct, same.letter_correct);
    EXPECT_EQ(one.text_correct, same.text_correct);
    EXPECT_NEAR(one.truth_ratio.value_or(-1), same.truth_ratio.value_or(-1), 1e-4);
  }
}

TEST_F(RelearnTest, AnAttackIsScoredAndLeavesTheModelAsItWas) {
  const Split split = split_items(set_, 5, 0);
  golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout& layout) {
    const io::TokenSet known = subset(set_, split.known), hidden = subset(set_, split.hidden);
    const double before = evaluate(model, layout, hidden, 1000).nll;
    const auto nll = [&](const io::TokenSet& scored, Attacker attacker) {
      AttackOptions options;
      options.attacker = attacker;
      options.learning_rate = 1e-2;
      options.steps = {1, 3};
      std::vector<double> curve;
      for (const auto& [step, metrics] : attack(model, layout, known, scored, options)) {
        EXPECT_EQ(step, curve.empty() ? 0 : options.steps[curve.size() - 1]);
        curve.push_back(metrics.nll);
      }
      return curve;
    };
    for (const Attacker attacker : {Attacker::qv_lora, Attacker::all_weights}) {
      const auto curve = nll(hidden, attacker);
      ASSERT_EQ(curve.size(), 3U);
      EXPECT_NEAR(curve[0], before, 1e-5 * before);
      const auto of_known = nll(known, attacker);
      EXPECT_LT(of_known[1], of_known[0]);
      EXPECT_LT(of_known[2], of_known[1]);
    }
    const auto eight = nll(hidden, Attacker::int8), four = nll(hidden, Attacker::int4);
    ASSERT_EQ(eight.size(), 1U);
    EXPECT_NE(eight[0], before);
    EXPECT_NE(four[0], eight[0]);
    EXPECT_EQ(evaluate(model, layout, hidden, 1000).nll, before);
  });
}

}  // namespace
}  // namespace mrp::shard
