#include "jobs/refine_setup.hpp"

#include <gtest/gtest.h>

namespace mrp::jobs {
namespace {

/// As many items as given, of which some ask for a letter.
io::TokenSet forget_set(int items, int letters) {
  io::TokenSet set;
  for (int i = 0; i < items; ++i) {
    set.items.append(std::vector<std::int32_t>{1, 2}, std::vector<std::uint8_t>{0, 1});
    set.letter_position.push_back(i < letters ? 1 : -1);
    set.answer_index.push_back(0);
  }
  return set;
}

double softness(const std::string& refine, const io::TokenSet& forget) {
  const JobConfig config = parse_job(
      "/jobs/job.yaml", "model: m\noutput: o\ndata: {forget: f, retain: r}\nrefine: " + refine, {});
  return output_softness(config, forget);
}

TEST(OutputSoftnessTest, IsForLettersUnlessTheJobSaysOtherwise) {
  EXPECT_EQ(softness("{}", forget_set(4, 2)), 0.1);
  EXPECT_EQ(softness("{}", forget_set(4, 1)), 0.0);
  EXPECT_EQ(softness("{output_softness: auto}", forget_set(4, 4)), 0.1);
  EXPECT_EQ(softness("{output_softness: 0}", forget_set(4, 4)), 0.0);
  EXPECT_EQ(softness("{output_softness: 0.3}", forget_set(4, 0)), 0.3);
}

}  // namespace
}  // namespace mrp::jobs
