// Packed batches: what shares a row or a prefix must come out as if each sequence ran alone.
#include "shard/packing.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "shard/evaluate/packed_plan.hpp"
#include "shard/golden_case.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {
namespace {

using Tokens = std::vector<std::int32_t>;

std::vector<TokenSpan> spans(const std::vector<Tokens>& sequences) {
  return {sequences.begin(), sequences.end()};
}

Tokens range(std::int32_t begin, std::int32_t end) {
  Tokens tokens;
  for (std::int32_t t = begin; t < end; ++t) tokens.push_back(t);
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PackingTest, NeighboursThatBeginAlikeFormAGroup) {
  const Tokens prompt = range(10, 22);
  const std::vector<Tokens> sequences{prompt + Tokens{1, 2}, prompt + Tokens{3},
                                      prompt + Tokens{1, 4, 5}, range(30, 40),
                                      Tokens{30} + range(50, 60)};
  const auto groups = prefix_groups(spans(sequences));
  ASSERT_EQ(groups.size(), 3U);
  EXPECT_EQ(groups[0].members, (dist::Range{0, 3}));
  EXPECT_EQ(groups[0].prefix, 12);
  EXPECT_EQ(groups[0].length, 12 + 2 + 1 + 3);
  EXPECT_EQ(groups[1].members, (dist::Range{3, 4}));
  EXPECT_EQ(groups[1].length, 10);
  EXPECT_EQ(groups[2].members, (dist::Range{4, 5}));  // one shared token saves too little
}

TEST(PackingTest, AGroupStaysShort) {
  std::vector<Tokens> sequences;
  for (std::int32_t i = 0; i < 40; ++i) sequences.push_back(range(100, 110) + range(i, i + 10));
  for (const PrefixGroup& group : prefix_groups(spans(sequences))) {
    EXPECT_EQ(group.prefix, 10);
    EXPECT_LE(group.length, 4 * 20);
  }
}

TEST(PackingTest, EveryTokenStandsOnceWithItsPosition) {
  const Tokens prompt = range(10, 16);
  const std::vector<Tokens> sequences{prompt + Tokens{1, 2}, prompt + Tokens{1, 3}, range(20, 23),
                                      range(30, 35)};
  const PackedBatch batch = pack(spans(sequences));
  EXPECT_EQ(batch.tokens.sizes(), (std::vector<std::int64_t>{2, 9}));  // 7 + 1 + 1; 5 and 3
  EXPECT_EQ(batch.longest, 8);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    for (std::size_t t = 0; t < sequences[i].size(); ++t) {
      const auto slot = batch.slot(static_cast<std::int64_t>(i), static_cast<std::int64_t>(t));
      EXPECT_EQ(batch.tokens.flatten()[slot].item<std::int64_t>(), sequences[i][t]);
      EXPECT_EQ(batch.positions.flatten()[slot].item<std::int64_t>(), std::int64_t(t));
    }
  }
}

TEST(PackingTest, SequencesThatHaveNothingInCommonStayPlain) {
  const std::vector<Tokens> sequences{range(0, 5), range(10, 16), range(20, 24)};
  const PackedBatch batch = pack(spans(sequences));
  EXPECT_FALSE(batch.seen.defined());
  EXPECT_EQ(batch.tokens.sizes(), (std::vector<std::int64_t>{3, 6}));
  EXPECT_EQ(batch.tokens.flatten()[batch.slot(2, 3)].item<std::int64_t>(), 23);
}

class PackedModelTest : public testing::TestWithParam<const char*> {
 protected:
  /// Two prompts with three answers each, and short sequences that share a row.
  std::vector<Tokens> sequences() const {
    std::mt19937_64 random(3);
    const auto draw = [&](int count) {
      Tokens tokens;
      for (int n = 0; n < count; ++n) {
        tokens.push_back(
            static_cast<std::int32_t>(random() % std::uint64_t(golden_.config().vocab_size)));
      }
      return tokens;
    };
    std::vector<Tokens> all;
    for (const int length : {7, 5}) {
      const Tokens prompt = draw(length);
      for (const int answer : {2, 1, 3}) all.push_back(prompt + draw(answer));
    }
    for (const int length : {3, 4, 2}) all.push_back(draw(length));
    return all;
  }

  /// Of all linear layers.
  static std::vector<torch::Tensor> gradients_of(const torch::Tensor& value, CausalLM& model) {
    value.backward();
    std::vector<torch::Tensor> gradients;
    for (const Parameter& parameter : model.parameters()) {
      if (parameter.input) {
        gradients.push_back(std::exchange(parameter.value->mutable_grad(), torch::Tensor()));
      }
    }
    return gradients;
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::GoldenCase golden_{GetParam()};
};

TEST_P(PackedModelTest, StatesAndGradientsAreThoseOfEachSequenceAlone) {
  const auto sizes = legal_tensor_sizes(golden_.config());
  if (std::count(sizes.begin(), sizes.end(), world_.size()) == 0) return;
  const dist::ParallelLayout layout(world_, world_.size());
  const auto all = sequences();
  const PackedBatch batch = pack(spans(all));
  ASSERT_TRUE(batch.seen.defined());
  struct Case {
    bool recorded, recomputed;
  };
  for (const auto [recorded, recomputed] : {Case{false, false}, {true, false}, {true, true}}) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout,
                   {.recompute_layers = recomputed});
    for (const Parameter& parameter : model.parameters()) parameter.value->requires_grad_(recorded);
    const torch::Tensor states = model.hidden_states(batch).flatten(0, 1);
    torch::Tensor sum = torch::zeros({}), sum_alone = torch::zeros({});
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::vector<std::int64_t> slots;
      for (std::int64_t t = 0; t < std::ssize(all[i]); ++t) {
        slots.push_back(batch.slot(static_cast<std::int64_t>(i), t));
      }
      const std::vector<TokenSpan> one{all[i]};
      const torch::Tensor alone = model.hidden_states(pad(one)).squeeze(0);
      const torch::Tensor together = states.index_select(0, torch::tensor(slots));
      EXPECT_LE((together - alone).abs().max().item<double>(), 2e-5) << "sequence " << i;
      sum = sum + together.square().sum();
      sum_alone = sum_alone + alone.square().sum();
    }
    if (!recorded) continue;
    const auto gradients = gradients_of(sum, model), expected = gradients_of(sum_alone, model);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const double size = std::max(1.0, expected[i].abs().max().item<double>());
      EXPECT_LE((gradients[i] - expected[i]).abs().max().item<double>(), 2e-5 * size);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, PackedModelTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

TEST(PackedPlanTest, EverySequenceRunsOnOneRankInABatchThatFits) {
  io::Sequences sequences;
  for (std::int32_t item = 0; item < 9; ++item) {
    for (std::int32_t answer = 0; answer < 3; ++answer) {
      const Tokens tokens = range(100 * item, 100 * item + 6 + item) + Tokens{answer, 1, 2};
      std::vector<std::uint8_t> mask(tokens.size());
      mask[tokens.size() - 3] = 1;  // the last token but one is the last to be predicted
      sequences.append(tokens, mask);
    }
  }
  const PackedPlan plan(sequences, 2, 40);
  std::vector<std::int64_t> seen;
  std::int64_t tokens = 0;
  for (std::int64_t round = 0; round < plan.rounds(); ++round) {
    for (const int rank : {0, 1}) {
      const auto members = plan.members(rank, round);
      if (members.empty()) continue;
      const PackedBatch batch = plan.batch(rank, round);
      EXPECT_EQ(batch.tokens.sizes(), (std::vector<std::int64_t>{plan.shape(rank, round).first,
                                                                 plan.shape(rank, round).second}));
      EXPECT_LE(batch.tokens.numel(), 40);
      ASSERT_EQ(batch.places.size(), members.size());
      for (std::size_t i = 0; i < members.size(); ++i) {
        const auto expected = sequences.tokens(members[i]);
        const std::int64_t last = std::ssize(expected) - 3;
        const auto slot = batch.slot(static_cast<std::int64_t>(i), last);
        EXPECT_EQ(batch.tokens.flatten()[slot].item<std::int64_t>(),
                  expected[static_cast<std::size_t>(last)]);
      }
      seen.insert(seen.end(), members.begin(), members.end());
    }
    tokens += plan.tokens(round);
  }
  std::ranges::sort(seen);
  EXPECT_EQ(seen, all_items(sequences.count()));
  EXPECT_EQ(tokens, std::ssize(sequences.token_ids));
}

TEST(PackingTest, NothingRunsBehindTheLastTarget) {
  const std::vector<std::int32_t> tokens{5, 6, 7, 8};
  const std::vector<std::uint8_t> mask{0, 1, 1, 0}, none{0, 0, 0, 0};
  EXPECT_EQ(up_to_last_target(tokens, mask).size(), 3U);
  EXPECT_EQ(up_to_last_target(tokens, none).size(), 1U);
}

}  // namespace
}  // namespace mrp::shard
