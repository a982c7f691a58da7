#include "jobs/forget_like.hpp"

#include <gtest/gtest.h>

#include <initializer_list>

namespace mrp::jobs {
namespace {

using Tokens = std::vector<std::int32_t>;

io::Sequences sequences(std::initializer_list<Tokens> all) {
  io::Sequences result;
  result.offsets = {0};
  for (const Tokens& tokens : all) {
    result.token_ids.insert(result.token_ids.end(), tokens.begin(), tokens.end());
    result.offsets.push_back(std::ssize(result.token_ids));
  }
  return result;
}

io::TokenSet make_set(std::initializer_list<Tokens> items, std::initializer_list<Tokens> options) {
  io::TokenSet set;
  set.items = sequences(items);
  set.options.sequences = sequences(options);
  return set;
}

/// 1 2 3 4 5 is how questions begin; 6 … 9 and 20 … 25 are of the forget set, 11 … 14 of the other.
const ForgetPhrases kPhrases(make_set({{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3}},
                                      {{20, 21, 22, 23, 24, 25}}),
                             make_set({{1, 2, 3, 4, 5, 11, 12, 13, 14}}, {{30, 31, 32, 33, 34}}));

TEST(ForgetPhrasesTest, TheForgetSetItselfIsFound) {
  // Of five phrases all but the first, which the retain set has too.
  EXPECT_DOUBLE_EQ(kPhrases.share(Tokens{1, 2, 3, 4, 5, 6, 7, 8, 9}), 0.8);
  EXPECT_DOUBLE_EQ(kPhrases.share(Tokens{20, 21, 22, 23, 24}), 1.0);
}

TEST(ForgetPhrasesTest, WhatTheRetainSetSaysIsNoSign) {
  EXPECT_EQ(kPhrases.share(Tokens{1, 2, 3, 4, 5, 11, 12, 13, 14}), 0);
  EXPECT_EQ(kPhrases.share(Tokens{30, 31, 32, 33, 34}), 0);
}

TEST(ForgetPhrasesTest, APhraseLiesWithinOneText) {
  // 7 8 9 1 2: the end of one item and the beginning of the next.
  EXPECT_EQ(kPhrases.share(Tokens{7, 8, 9, 1, 2}), 0);
  EXPECT_EQ(kPhrases.share(Tokens{9, 1, 2, 3, 20}), 0);
}

TEST(ForgetPhrasesTest, TheShareIsOfAllPhrasesOfTheText) {
  Tokens long_text(15, 40);
  long_text.insert(long_text.end(), {20, 21, 22, 23, 24});
  EXPECT_DOUBLE_EQ(kPhrases.share(long_text), 1.0 / 16);
  EXPECT_EQ(kPhrases.share(Tokens{6, 7, 8, 9}), 0);
  EXPECT_EQ(kPhrases.share(Tokens{}), 0);
}

TEST(ForgetPhrasesTest, RepeatedPhrasesOfTheForgetSetCountOnce) {
  const ForgetPhrases repeated(make_set({{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}}, {}),
                               make_set({{1, 2, 3, 4, 5}}, {}));
  EXPECT_EQ(repeated.share(Tokens{1, 2, 3, 4, 5}), 0);
}

}  // namespace
}  // namespace mrp::jobs
