#include "shard/batches.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <tuple>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

io::Sequences random_sequences(std::mt19937_64& random, std::int64_t count) {
  io::Sequences sequences;
  sequences.offsets = {0};
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t length = 1 + static_cast<std::int64_t>(random() % 40);
    for (std::int64_t t = 0; t < length; ++t) {
      sequences.token_ids.push_back(static_cast<std::int32_t>(1 + random() % 90));
      sequences.target_mask.push_back(t + 1 < length ? 1 : 0);
    }
    sequences.offsets.push_back(sequences.offsets.back() + length);
  }
  return sequences;
}

TEST(BatchesTest, EverySequenceRunsOnceInOrderWithinTheBudget) {
  std::mt19937_64 random(1);
  for (const std::int64_t count : {1, 3, 17, 200}) {
    const io::Sequences sequences = random_sequences(random, count);
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    for (const int ranks : {1, 2, 4, 7}) {
      for (const std::int64_t budget : {1, 64, 500}) {
        const BatchPlan plan = plan_batches(sequences, all, ranks, budget);
        ASSERT_EQ(std::ssize(plan.batches), ranks);
        EXPECT_TRUE(std::ranges::is_sorted(
            plan.order, {}, [&](std::int64_t i) { return std::tuple(sequences.length(i), i); }));
        std::int64_t next = 0;
        for (const auto& of_rank : plan.batches) {
          for (const dist::Range batch : of_rank) {
            EXPECT_EQ(batch.begin, next);
            next = batch.end;
            EXPECT_GT(batch.size(), 0);
            const std::int64_t longest = sequences.length(plan.members(batch).back());
            EXPECT_TRUE(batch.size() == 1 || batch.size() * longest <= budget);
          }
        }
        EXPECT_EQ(next, count);
        std::int64_t tokens = 0;
        for (std::int64_t round = 0; round < plan.rounds(); ++round) {
          tokens += round_tokens(plan, sequences, round);
        }
        EXPECT_EQ(tokens, std::ssize(sequences.token_ids));
      }
    }
  }
}

TEST(BatchesTest, TheOrderDoesNotDependOnRanksOrBudget) {
  std::mt19937_64 random(2);
  const io::Sequences sequences = random_sequences(random, 50);
  // With lengths up to 40, fifty sequences have ties.
  std::vector<std::int64_t> chosen(50);
  std::iota(chosen.rbegin(), chosen.rend(), 0);
  const auto order = plan_batches(sequences, chosen, 1, 100).order;
  EXPECT_EQ(plan_batches(sequences, chosen, 4, 10).order, order);
  EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), chosen.begin(), chosen.end()));
}

TEST(BatchesTest, PadFillsOnTheRight) {
  const io::Sequences sequences{{5, 6, 7, 8, 9, 4}, {0, 3, 5, 6}, {1, 1, 0, 1, 0, 0}};
  const std::vector<std::int64_t> members = {1, 0};
  const auto expected = torch::tensor({{8, 9, 0}, {5, 6, 7}}, torch::kInt64);
  EXPECT_TRUE(torch::equal(pad(sequences, members), expected));
}

TEST(BatchesTest, ChecksNameTheSequence) {
  io::ModelConfig config;
  config.vocab_size = 10;
  config.max_position = 3;
  const io::Sequences good{{5, 6, 7, 8, 9}, {0, 3, 5}, {1, 1, 0, 1, 0}};
  EXPECT_NO_THROW(check_sequences(config, good, "set x"));
  const auto message = [&] {
    try {
      check_sequences(config, good, "set x");
    } catch (const dist::InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  config.vocab_size = 9;
  EXPECT_NE(message().find("set x, sequence 1: token 9 "), std::string::npos) << message();
  config.vocab_size = 10;
  config.max_position = 2;
  EXPECT_NE(message().find("set x, sequence 0: a sequence of 3 tokens"), std::string::npos);
  config.max_position = 3;
  config.sliding_window = 2;
  EXPECT_NE(message().find("sliding window of 2"), std::string::npos) << message();
}

}  // namespace
}  // namespace mrp::shard
