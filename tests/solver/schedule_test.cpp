#include "solver/schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace mrp::solver {
namespace {

constexpr std::uint64_t plenty = std::uint64_t{1} << 40;

TEST(Schedule, EqualProblemsAreSharedEvenly) {
  const std::vector<Problem> problems(12, Problem{512, 4000});
  const auto assignment = assign(problems, 4, plenty);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(std::count(assignment.begin(), assignment.end(), rank), 3);
  }
}

TEST(Schedule, OneBigProblemTakesAllRanks) {
  std::vector<Problem> problems(6, Problem{256, 2000});
  problems.push_back({4096, 20000});
  const auto assignment = assign(problems, 4, plenty);
  EXPECT_EQ(assignment.back(), -1);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_GE(assignment[i], 0);
}

TEST(Schedule, WhatDoesNotFitOneRankIsSolvedTogether) {
  const std::vector<Problem> problems(8, Problem{2048, 9000});
  const auto assignment = assign(problems, 2, std::uint64_t{64} << 20);
  EXPECT_EQ(std::count(assignment.begin(), assignment.end(), -1), 8);
  const auto roomy = assign(problems, 2, plenty);
  EXPECT_EQ(std::count(roomy.begin(), roomy.end(), -1), 0);
}

TEST(Schedule, OneRankSolvesEverythingAlone) {
  const std::vector<Problem> problems{{4096, 20000}, {16, 10}};
  EXPECT_EQ(assign(problems, 1, 1), (std::vector<int>{0, 0}));
  EXPECT_TRUE(assign({}, 3, plenty).empty());
}

// No rank is loaded with more than the share plus one problem: what largest-first guarantees.
TEST(Schedule, LoadsAreBalanced) {
  std::vector<Problem> problems;
  for (int i = 0; i < 40; ++i) problems.push_back({128 + 37 * (i % 11), 500 + 211 * (i % 7)});
  const auto assignment = assign(problems, 6, plenty);
  std::vector<double> load(6, 0);
  double total = 0, largest = 0;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    ASSERT_GE(assignment[i], 0);
    load[static_cast<std::size_t>(assignment[i])] += work(problems[i]);
    total += work(problems[i]);
    largest = std::max(largest, work(problems[i]));
  }
  EXPECT_LE(*std::max_element(load.begin(), load.end()), total / 6 + largest);
  EXPECT_GT(*std::min_element(load.begin(), load.end()), 0);
}

TEST(Schedule, WorkFollowsTheSmallerSide) {
  EXPECT_LT(work({16384, 500}), work({16384, 20000}) / 100);
  EXPECT_LT(work({500, 16384}), work({16384, 16384}) / 100);
}

}  // namespace
}  // namespace mrp::solver
