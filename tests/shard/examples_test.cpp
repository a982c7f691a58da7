// Which answers stand beside the right one.
#include "shard/train/examples.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "shard/train_case.hpp"

namespace mrp::shard {
namespace {

class ExamplesTest : public testing::Test {
 protected:
  /// Whose answers are drawn beside that of an item, of which there are 7, in many draws.
  std::set<std::int64_t> drawn(std::int64_t item, const std::vector<std::int64_t>& among) const {
    std::set<std::int64_t> found;
    std::mt19937_64 random(1);
    for (int n = 0; n < 100; ++n) {
      const Alternatives alternatives = examples_.alternatives(item, random, among);
      for (std::size_t k = 0; k < alternatives.examples.size(); ++k) {
        std::int64_t answered = 0;
        while (answered < examples_.count() - 1 &&
               examples_.substituted(item, answered).tokens != alternatives.examples[k].tokens) {
          ++answered;
        }
        EXPECT_EQ(answered == item, k == alternatives.right);
        if (k != alternatives.right) found.insert(answered);
      }
    }
    return found;
  }

  test::TrainCase case_ = test::train_case(64);
  Examples examples_{case_.set};
};

TEST_F(ExamplesTest, AlternativesOfAnItemWithoutChoicesAreAnswersOfOthers) {
  EXPECT_THAT(drawn(1, {}), testing::ElementsAre(0, 2, 3, 4, 5, 6));
  EXPECT_THAT(drawn(1, {1, 3, 6}), testing::ElementsAre(3, 6));
  EXPECT_THAT(drawn(1, {4}), testing::ElementsAre(4));
  // It has no other among itself.
  EXPECT_THAT(drawn(1, {1}), testing::ElementsAre(0, 2, 3, 4, 5, 6));
}

}  // namespace
}  // namespace mrp::shard
