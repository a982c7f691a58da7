// Metrics of single answers and their options, worked out by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "shard/evaluate/options.hpp"
#include "shard/evaluate/token_metrics.hpp"

namespace mrp::shard {
namespace {

double strength(std::initializer_list<bool> hits) {
  return extraction_strength(std::span(hits.begin(), hits.size()));
}

TEST(TokenMetricsTest, ExtractionStrengthIsTheShareOfTheMatchingEnd) {
  EXPECT_EQ(strength({true, true, true, true}), 1);
  EXPECT_EQ(strength({true, false, true, true}), 0.5);
  EXPECT_EQ(strength({false, true, true, true}), 0.75);
  EXPECT_EQ(strength({true, true, true, false}), 0) << "no end matches";
  EXPECT_EQ(strength({false}), 0);
  EXPECT_EQ(strength({true}), 1);
}

TEST(TokenMetricsTest, MinKAveragesTheLowestTokens) {
  EXPECT_DOUBLE_EQ(min_k({-1, -5, -2, -4, -3}, 0.4), 4.5);
  EXPECT_DOUBLE_EQ(min_k({-1, -2, -7, -3}, 0.4), 7) << "1.6 tokens are one";
  EXPECT_DOUBLE_EQ(min_k({-3, -1}, 0.4), 3) << "at least one";
  EXPECT_TRUE(std::isnan(min_k({-3, NAN, -1}, 0.4)));
}

/// Item 0: right choice 1 of 3 in both forms. Item 1: right choice 0, with paraphrases.
class OptionMetricsTest : public testing::Test {
 protected:
  void add(std::int64_t item, std::int32_t choice, io::OptionForm form, double probability) {
    set_.options.item.push_back(item);
    set_.options.choice.push_back(choice);
    set_.options.form.push_back(form);
    scores_.push_back({4 * std::log(probability), 4});  // four tokens each
  }

  std::vector<ItemMetrics> metrics() const {
    std::vector<ItemMetrics> items(2);
    items[0].letter_correct = 1;
    add_option_metrics(set_, scores_, items);
    return items;
  }

  io::TokenSet set_ = [] {
    io::TokenSet set;
    set.ids = {"a", "b"};
    set.answer_index = {1, 0};
    return set;
  }();
  std::vector<SequenceScore> scores_;
};

TEST_F(OptionMetricsTest, FollowFromTheMeanTokenProbabilities) {
  using enum io::OptionForm;
  for (const auto form : {list, open}) {
    add(0, 0, form, 0.1);
    add(0, 1, form, form == list ? 0.2 : 0.3);
    add(0, 2, form, 0.4);
  }
  add(1, 0, open, 0.5);
  add(1, 1, open, 0.04);
  add(1, 2, open, 0.16);
  add(1, -1, paraphrase, 0.2);
  const auto items = metrics();
  EXPECT_EQ(items[0].text_correct, 0);
  EXPECT_EQ(items[0].both_correct, 0);
  EXPECT_EQ(items[0].open_correct, 0);
  EXPECT_NEAR(items[0].option_probability.value(), 0.3 / 0.8, 1e-12);
  EXPECT_FALSE(items[0].paraphrase_probability);
  EXPECT_NEAR(items[0].truth_ratio.value(), 0.2 / 0.3, 1e-12) << "geometric mean of .1 and .4";
  EXPECT_NEAR(items[0].truth_ratio_arithmetic.value(), 0.25 / 0.3, 1e-12);
  EXPECT_FALSE(items[1].text_correct || items[1].both_correct);
  EXPECT_EQ(items[1].open_correct, 1);
  EXPECT_NEAR(items[1].option_probability.value(), 0.5 / 0.7, 1e-12);
  EXPECT_NEAR(items[1].paraphrase_probability.value(), 0.2, 1e-12);
  EXPECT_NEAR(items[1].truth_ratio.value(), 0.08 / 0.2, 1e-12);
  EXPECT_NEAR(items[1].truth_ratio_arithmetic.value(), 0.1 / 0.2, 1e-12);
}

TEST_F(OptionMetricsTest, AmongEqualsTheFirstIsChosen) {
  using enum io::OptionForm;
  add(0, 0, list, 0.2);
  add(0, 1, list, 0.2);
  add(1, 0, list, 0.2);
  add(1, 1, list, 0.2);
  const auto items = metrics();
  EXPECT_EQ(items[0].text_correct, 0);
  EXPECT_EQ(items[1].text_correct, 1);
}

}  // namespace
}  // namespace mrp::shard
