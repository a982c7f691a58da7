// Generation against transformers' generate, against the model without its cache, and, for samples,
// against the softmax that they are drawn from.
#include "shard/generate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "shard/golden_case.hpp"
#include "shard/model/kv_cache.hpp"

namespace mrp::shard {
namespace {

using test::GoldenCase;
using Tokens = std::vector<std::int32_t>;

std::vector<Tokens> prompts_of(const io::Sequences& sequences) {
  std::vector<Tokens> prompts;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    const auto tokens = sequences.tokens(i);
    prompts.emplace_back(tokens.begin(), tokens.end());
  }
  return prompts;
}

std::vector<Tokens> rows_of(const torch::Tensor& matrix) {
  std::vector<Tokens> rows;
  for (std::int64_t i = 0; i < matrix.size(0); ++i) {
    const auto* row = matrix.const_data_ptr<std::int64_t>() + i * matrix.size(1);
    rows.emplace_back(row, row + matrix.size(1));
  }
  return rows;
}

class GenerateTest : public testing::TestWithParam<const char*> {
 protected:
  dist::Communicator world_ = dist::Communicator::world();
  dist::Communicator self_ = dist::Communicator::self();
  GoldenCase golden_{GetParam()};
  std::vector<Tokens> prompts_ = prompts_of(golden_.token_set().items);
};

TEST_P(GenerateTest, LikeliestTokensEqualThoseOfTransformers) {
  const std::vector<Tokens> expected = rows_of(golden_.expected("continuations"));
  const auto length = std::ssize(expected[0]);
  golden_.on_all_layouts(
      world_, {}, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        // All at once, padded, and in small batches.
        for (const std::int64_t budget : {4096, 20}) {
          EXPECT_EQ(generate(model, layout, prompts_,
                             {.max_tokens = length, .batch_tokens = budget}, "prompts"),
                    expected)
              << budget;
        }
      });
}

TEST_P(GenerateTest, AnEndTokenEndsAndIsLeftOut) {
  std::vector<Tokens> expected = rows_of(golden_.expected("continuations"));
  const auto length = std::ssize(expected[0]);
  const std::int32_t end = expected[0][5];
  for (Tokens& tokens : expected) tokens.erase(std::ranges::find(tokens, end), tokens.end());
  golden_.on_all_layouts(
      world_, {}, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        EXPECT_EQ(
            generate(model, layout, prompts_, {.max_tokens = length, .end_token = end}, "prompts"),
            expected);
      });
}

TEST_P(GenerateTest, SamplesAreTheSameOnEveryLayoutAndInEveryBatch) {
  GenerateOptions options{.max_tokens = 12, .temperature = 1, .seed = 5, .end_token = 7};
  const dist::ParallelLayout alone(self_, 1);
  const CausalLM whole(golden_.checkpoint(), golden_.config(), alone, {});
  const auto expected = generate(whole, alone, prompts_, options, "prompts");
  golden_.on_all_layouts(
      world_, {}, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        for (const std::int64_t budget : {4096, 20}) {
          options.batch_tokens = budget;
          EXPECT_EQ(generate(model, layout, prompts_, options, "prompts"), expected) << budget;
        }
      });
  options.seed = 6;
  EXPECT_NE(generate(whole, alone, prompts_, options, "prompts"), expected);
}

/// Any way of running a sequence in passes gives the states of one pass without a cache.
TEST_P(GenerateTest, CachedStatesEqualThoseWithoutACache) {
  const io::Sequences items = golden_.token_set().items;
  const std::int64_t longest = std::ssize(std::ranges::max(prompts_, {}, &Tokens::size));
  std::vector<std::int64_t> padding;
  torch::Tensor tokens = torch::zeros({items.count(), longest}, torch::kInt64);
  for (std::int64_t i = 0; i < items.count(); ++i) {
    padding.push_back(longest - items.length(i));
    for (std::int64_t t = 0; t < items.length(i); ++t) {
      tokens[i][padding.back() + t] = items.tokens(i)[static_cast<std::size_t>(t)];
    }
  }
  golden_.on_all_layouts(world_, {}, [&](const CausalLM& model, const dist::ParallelLayout&) {
    const c10::InferenceMode inference;
    const torch::Tensor whole = model.hidden_states(test::padded_tokens(items));
    KvCache cache(padding, longest, torch::kCPU);
    std::vector<torch::Tensor> passes;
    for (std::int64_t begin = 0; begin < longest;) {
      const std::int64_t count = begin == 0 ? 8 : begin == 8 ? 4 : 1;
      passes.push_back(model.hidden_states(tokens.narrow(1, begin, count), cache));
      begin += count;
    }
    const torch::Tensor cached = torch::cat(passes, 1);
    for (std::int64_t i = 0; i < items.count(); ++i) {
      const std::int64_t length = items.length(i);
      EXPECT_LE(test::relative_difference(cached[i].narrow(0, longest - length, length),
                                          whole[i].narrow(0, 0, length)),
                1e-4)
          << "sequence " << i;
    }
    EXPECT_THROW(model.hidden_states(tokens.narrow(1, 0, 1), cache), dist::ContractError);
  });
}

INSTANTIATE_TEST_SUITE_P(Golden, GenerateTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral",
                                         "dynamic_gelu"),
                         [](const auto& one) { return std::string(one.param); });

class SampleTest : public testing::Test {
 protected:
  /// Pearson's statistic of first tokens against probabilities, for tokens expected at least 5
  /// times, the others as one; and its degrees of freedom.
  static std::pair<double, double> chi_square(const std::vector<Tokens>& drawn,
                                              const torch::Tensor& probabilities) {
    const auto total = static_cast<double>(drawn.size());
    std::vector<double> counts(static_cast<std::size_t>(probabilities.size(0)), 0);
    for (const Tokens& tokens : drawn) counts[static_cast<std::size_t>(tokens.at(0))] += 1;
    double statistic = 0, rare_expected = 0, rare_count = 0, cells = 0;
    const auto add = [&](double count, double expected) {
      statistic += (count - expected) * (count - expected) / expected;
      cells += 1;
    };
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const double expected = total * probabilities[static_cast<std::int64_t>(i)].item<double>();
      if (expected >= 5) {
        add(counts[i], expected);
      } else {
        rare_expected += expected;
        rare_count += counts[i];
      }
    }
    if (rare_expected > 0) add(rare_count, rare_expected);
    return {statistic, cells - 1};
  }

  dist::Communicator world_ = dist::Communicator::world();
  GoldenCase golden_{"grouped"};
};

TEST_F(SampleTest, FrequenciesAreThoseOfTheSoftmax) {
  const dist::ParallelLayout layout(world_, world_.size());
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const Tokens prompt = prompts_of(golden_.token_set().items)[0];
  const torch::Tensor logits =
      golden_.expected("logits")[std::ssize(prompt) - 1].to(torch::kFloat64);
  const std::vector<Tokens> prompts(5000, prompt);
  for (const double temperature : {1.0, 0.5, 3.0}) {
    const auto drawn = generate(model, layout, prompts,
                                {.max_tokens = 1, .temperature = temperature, .seed = 1}, "draws");
    const auto [statistic, freedom] = chi_square(drawn, (logits / temperature).softmax(0));
    EXPECT_GE(freedom, 5);
    // Three standard deviations around the mean of the χ² distribution.
    EXPECT_NEAR(statistic, freedom, 3 * std::sqrt(2 * freedom)) << temperature;
  }
}

/// At a high temperature all tokens are equally likely, whatever came before.
TEST_F(SampleTest, PositionsAreIndependent) {
  const dist::ParallelLayout layout(world_, world_.size());
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const std::vector<Tokens> prompts(300, Tokens{5});
  const auto drawn =
      generate(model, layout, prompts, {.max_tokens = 20, .temperature = 1e6, .seed = 3}, "draws");
  const std::int64_t vocabulary = golden_.config().vocab_size;
  std::vector<Tokens> single, sums;  // of two neighbours, modulo the vocabulary: uniform too
  for (const Tokens& tokens : drawn) {
    for (std::size_t t = 1; t < tokens.size(); ++t) {
      single.push_back({tokens[t]});
      sums.push_back({static_cast<std::int32_t>((tokens[t - 1] + tokens[t]) % vocabulary)});
    }
  }
  const torch::Tensor uniform =
      torch::full({vocabulary}, 1.0 / static_cast<double>(vocabulary), torch::kFloat64);
  for (const auto& tokens : {single, sums}) {
    const auto [statistic, freedom] = chi_square(tokens, uniform);
    EXPECT_EQ(freedom, vocabulary - 1);
    EXPECT_NEAR(statistic, freedom, 3 * std::sqrt(2 * freedom));
  }
}

TEST_F(SampleTest, GenerationEndsWithThePositionsOfTheModel) {
  const dist::ParallelLayout layout(world_, 1);
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const std::vector<Tokens> prompts = {Tokens(60, 5), Tokens{5}, Tokens(64, 5)};
  const auto found = generate(model, layout, prompts, {.max_tokens = 20}, "prompts");
  EXPECT_EQ(found[0].size(), 5U);
  EXPECT_EQ(found[1].size(), 20U);
  EXPECT_EQ(found[2].size(), 1U);
}

TEST_F(SampleTest, PromptsThatTheModelCannotReadAreNamed) {
  const dist::ParallelLayout layout(world_, 1);
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const auto message = [&](const Tokens& prompt) -> std::string {
    try {
      generate(model, layout, {Tokens{5}, prompt}, {}, "questions");
    } catch (const dist::InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message({}), testing::HasSubstr("questions, prompt 1 has no token"));
  EXPECT_THAT(message({67}), testing::HasSubstr("questions, sequence 1: token 67"));
  EXPECT_THAT(message(Tokens(65, 5)), testing::HasSubstr("questions, sequence 1"));
}

TEST_F(SampleTest, LogitsThatAreNaNAreAnErrorOnAllRanks) {
  const dist::ParallelLayout layout(world_, world_.size());
  CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  {
    const torch::NoGradGuard no_grad;
    // Of one rank's slice only.
    if (world_.rank() == world_.size() - 1) {
      model.parameters().back().value->index({0, 0}).fill_(std::numeric_limits<float>::quiet_NaN());
    }
  }
  for (const double temperature : {0.0, 1.0}) {
    EXPECT_THROW(generate(model, layout, {Tokens{5}}, {.temperature = temperature}, "prompts"),
                 dist::NumericalError);
  }
}

}  // namespace
}  // namespace mrp::shard
