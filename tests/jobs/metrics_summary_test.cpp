// Summaries and comparisons, worked out by hand.
#include "jobs/metrics_summary.hpp"

#include <gtest/gtest.h>

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "dist/error.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

/// A measured side whose items have the given values of one key.
json measured(const std::string& key, std::initializer_list<double> values) {
  json items = json::array();
  for (const double value : values) items.push_back({{key, value}});
  return {{"items", items}};
}

/// The same with means.
json summarised(const std::string& key, std::initializer_list<double> values) {
  json side = measured(key, values);
  summarise(side, false);
  return side;
}

TEST(MetricsSummaryTest, MeansAndIntervalsAreOverTheItemsThatHaveTheMetric) {
  json side = {
      {"items", {{{"loss", 1.0}, {"letter_correct", 1.0}}, {{"loss", 3.0}}, {{"loss", 5.0}}}}};
  summarise(side, true);
  EXPECT_EQ(side.at("nll"), 3.0);
  EXPECT_EQ(side.at("letter_accuracy"), 1.0);
  EXPECT_EQ(side.at("intervals").at("letter_accuracy"), json({1.0, 1.0}));
  EXPECT_LE(side.at("intervals").at("nll")[0], 2.0);
  EXPECT_GE(side.at("intervals").at("nll")[1], 4.0);
  EXPECT_FALSE(side.contains("text_accuracy") || side.at("intervals").contains("text_accuracy"));
}

TEST(MetricsSummaryTest, TruthRatioCountsDifferentlyOnTheForgetSet) {
  json forget = measured("truth_ratio", {0.5, 4, 1});
  forget["items"][0]["paraphrase_probability"] = 0.1;
  json other = forget;
  summarise(forget, true);
  summarise(other, false);
  EXPECT_NEAR(forget.at("truth_ratio"), (0.5 + 0.25 + 1) / 3, 1e-12);
  EXPECT_NEAR(other.at("truth_ratio"), (0.5 + 0 + 0) / 3, 1e-12);
  EXPECT_EQ(forget.at("truth_ratio_against"), json({{"paraphrase", 1}, {"answer", 2}}));
}

TEST(MetricsSummaryTest, ModelUtilityIsTheHarmonicMeanOfWhatTheSetsHave) {
  MetricsFile file;
  json retain = measured("answer_probability", {0.5});
  retain["items"][0]["truth_ratio"] = 0.2;
  retain["items"][0]["option_probability"] = 0.9;
  summarise(retain, false);
  json world = measured("answer_probability", {0.1});
  world["items"][0]["option_probability"] = 0.25;
  summarise(world, false);
  file.sets["retain"]["base"] = retain;
  file.sets["world"]["base"] = world;
  file.sets["forget"]["base"] = summarised("answer_probability", {0.01});
  file.sets["unseen"]["base"] = json({{"items", json::array()}});
  for (const char* score : {"loss", "min_k", "min_k_plus_plus", "zlib"}) {
    for (const char* set : {"forget", "unseen"}) {
      file.sets[set]["base"]["items"][0][score] = set == std::string("unseen") ? 2.0 : 1.0;
    }
  }
  const json found = compare(file, "unseen");
  EXPECT_EQ(found.at("model_utility").at("base").at("of"),
            json({{"retain.answer_probability", 0.5},
                  {"retain.truth_ratio", 0.8},
                  {"world.option_probability", 0.25}}));
  EXPECT_NEAR(found.at("model_utility").at("base").at("value"), 3 / (2 + 1.25 + 4), 1e-12);
  EXPECT_EQ(found.at("membership").at("holdout"), "unseen");
  EXPECT_EQ(found.at("membership").at("base").at("zlib"), 1.0) << "unseen items score higher";
  EXPECT_FALSE(found.contains("leaks") || found.contains("forget_quality"));
}

TEST(MetricsSummaryTest, ForgetQualityIsTakenAgainstTheControl) {
  MetricsFile file;
  file.sets["retain"] = {};
  file.sets["forget"]["base"] = summarised("truth_ratio", {0.1, 0.2, 0.3, 0.4});
  file.sets["forget"]["unlearned"] = summarised("truth_ratio", {5, 6, 7, 8});
  file.sets["forget"]["control"] = summarised("truth_ratio", {5, 6, 7, 8});
  const json quality = compare(file, "").at("forget_quality");
  EXPECT_EQ(quality.at("geometric").at("unlearned").at("d"), 0.0);
  EXPECT_EQ(quality.at("geometric").at("unlearned").at("p_value"), 1.0);
  EXPECT_EQ(quality.at("geometric").at("base").at("d"), 1.0);
  EXPECT_NEAR(quality.at("geometric").at("base").at("p_value"), 2.0 / 70, 1e-12);
  EXPECT_EQ(quality.at("geometric").at("base").at("items"), 4);
  EXPECT_FALSE(quality.contains("arithmetic"));
}

TEST(MetricsSummaryTest, LossesLieBelowTheBaseByMoreThanAHundredth) {
  const auto losses = [](const char* key, std::initializer_list<double> unlearned,
                         std::initializer_list<double> base) {
    MetricsFile file;
    file.sets["forget"] = {};
    file.sets["retain"]["base"] = summarised(key, base);
    file.sets["retain"]["unlearned"] = summarised(key, unlearned);
    return compare(file, "").at("losses");
  };
  const json found = losses("answer_probability", {0.9, 0.8, 0.7}, {1, 1, 1});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].at("metric"), "answer_probability");
  EXPECT_NEAR(found[0].at("unlearned"), 0.8, 1e-12);
  EXPECT_EQ(found[0].at("base"), 1.0);
  EXPECT_NEAR(found[0].at("difference"), -0.2, 1e-12);
  EXPECT_EQ(losses("loss", {0.2, 0.3, 0.4}, {0, 0, 0}).size(), 1U) << "a higher NLL is a loss";
  EXPECT_TRUE(losses("answer_probability", {0.992, 0.993}, {1, 1}).empty()) << "a hundredth is none";
  EXPECT_TRUE(losses("open_correct", {1, 0, 1, 1}, {1, 1, 1, 1}).empty()) << "within the noise";
  EXPECT_TRUE(losses("open_correct", {1, 1, 1, 1}, {0, 0, 0, 0}).empty()) << "better than before";
  EXPECT_THROW(losses("open_correct", {1, 1, 1}, {1, 1}), dist::InputError) << "a damaged file";
}

TEST(MetricsSummaryTest, LeaksLieBelowTheControlByMoreThanTheInterval) {
  const auto leaks = [](const char* key, std::initializer_list<double> unlearned,
                        std::initializer_list<double> control) {
    MetricsFile file;
    file.sets["forget"]["base"] = summarised(key, control);
    file.sets["forget"]["unlearned"] = summarised(key, unlearned);
    file.sets["forget"]["control"] = summarised(key, control);
    return compare(file, "").at("leaks");
  };
  const json found = leaks("letter_correct", {0, 0, 0, 0, 0, 0}, {1, 1, 0, 1, 1, 0});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].at("metric"), "letter_accuracy");
  EXPECT_EQ(found[0].at("unlearned"), 0.0);
  EXPECT_NEAR(found[0].at("control"), 2.0 / 3, 1e-12);
  EXPECT_NEAR(found[0].at("difference"), -2.0 / 3, 1e-12);
  EXPECT_LT(found[0].at("interval")[1], 0.0);
  EXPECT_TRUE(leaks("letter_correct", {0, 1, 0, 1}, {1, 0, 1, 1}).empty()) << "within the noise";
  EXPECT_TRUE(leaks("letter_correct", {1, 1, 1, 1}, {0, 0, 0, 0}).empty()) << "above the control";
  EXPECT_EQ(leaks("loss", {9, 9, 9}, {1, 2, 1}).size(), 1U) << "a higher NLL tells it too";
  EXPECT_TRUE(leaks("kl", {0, 0, 0}, {1, 2, 1}).empty());
}

}  // namespace
}  // namespace mrp::jobs
