#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "jobs/job_config.hpp"

namespace mrp::jobs {
namespace {

const std::string kBase = "model: base\noutput: out\ndata: {forget: f, retain: r}\n";

nlohmann::json parse(const std::string& more, const std::vector<std::string>& overrides = {}) {
  return settings(parse_job("/jobs/job.yaml", kBase + more, overrides));
}

TEST(PresetTest, ReliableIsTheDefault) {
  const auto job = parse("");
  EXPECT_EQ(job, parse("preset: reliable\n"));
  EXPECT_EQ(job.at("preset"), "reliable");
  EXPECT_EQ(job.at("project"), "false");
  EXPECT_EQ(job.at("refine").at("train"), "subspace");
  EXPECT_GT(job.at("refine").at("samples"), 0);
  EXPECT_GT(job.at("refine").at("tamper_resistance"), 0);
}

TEST(PresetTest, FastProjectsAndTrainsNothing) {
  const auto job = parse("preset: fast\n");
  EXPECT_EQ(job.at("project"), "true");
  EXPECT_EQ(job.at("refine").at("train"), "none");
}

TEST(PresetTest, PaperTrainsTwoDirectionsWithGradientAscent) {
  const auto job = parse("preset: paper\n");
  EXPECT_EQ(job.at("project"), "true");
  EXPECT_EQ(job.at("subspace").at("dimension"), 2);
  EXPECT_EQ(job.at("subspace").at("projector"), "orthogonal");
  EXPECT_THAT(job.at("sites").at("modules"), testing::ElementsAre("down_proj.output"));
  const auto& refine = job.at("refine");
  EXPECT_EQ(refine.at("train"), "projections");
  EXPECT_EQ(refine.at("forget_loss"), "gradient_ascent");
  EXPECT_EQ(refine.at("retain_loss"), "cross_entropy");
  EXPECT_EQ(refine.at("retain_weight"), 1.2);
  EXPECT_EQ(refine.at("optimizer"), "sgd");
  EXPECT_EQ(refine.at("samples"), 0);
  EXPECT_EQ(refine.at("tamper_resistance"), 0);
}

TEST(PresetTest, OtherKeysWinOverThePresetWhereverItStands) {
  for (const char* text : {"project: false\nrefine: {samples: 7}\npreset: fast\n",
                           "preset: fast\nproject: false\nrefine: {samples: 7}\n"}) {
    const auto job = parse(text);
    EXPECT_EQ(job.at("project"), "false");
    EXPECT_EQ(job.at("refine").at("samples"), 7);
    EXPECT_EQ(job.at("refine").at("train"), "none");
  }
}

TEST(PresetTest, AnOverrideOfThePresetKeepsTheKeysOfTheFile) {
  const auto job = parse("preset: fast\nsubspace: {dimension: 9}\n", {"preset=paper"});
  EXPECT_EQ(job.at("preset"), "paper");
  EXPECT_EQ(job.at("subspace").at("dimension"), 9);
  EXPECT_EQ(job.at("refine").at("train"), "projections");
}

}  // namespace
}  // namespace mrp::jobs
