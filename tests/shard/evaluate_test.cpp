// Metrics against what golden.py computes from the logits of transformers.
#include "shard/evaluate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "dist/error.hpp"
#include "shard/golden_case.hpp"

namespace mrp::shard {
namespace {

using test::GoldenCase;

class EvaluateTest : public testing::TestWithParam<const char*> {
 protected:
  /// `value` is −1 in golden.py where an item lacks the metric.
  static void expect_optional(const std::optional<double>& actual, double value, double tolerance,
                              const std::string& what) {
    EXPECT_EQ(actual.has_value(), value >= 0) << what;
    if (actual && value >= 0) {
      EXPECT_NEAR(*actual, value, tolerance) << what;
    }
  }

  double at(const std::string& name, std::int64_t i) const {
    return golden_.expected("expected." + name)[i].item<double>();
  }

  /// The mean over the items that have the metric.
  void expect_mean(const std::optional<double>& actual, const std::string& name) const {
    const torch::Tensor values = golden_.expected("expected." + name);
    const double mean = values.masked_select(values >= 0).mean().item<double>();
    EXPECT_NEAR(actual.value_or(NAN), mean, 1e-4) << name;
  }

  /// Item `i` on its own; `has_kl`: there was a reference.
  void expect_item(const ItemMetrics& item, std::int64_t i, bool has_kl) const {
    SCOPED_TRACE(item.id);
    EXPECT_EQ(item.id, "item-" + std::to_string(i));
    EXPECT_EQ(item.tokens, static_cast<std::int64_t>(at("tokens", i)));
    EXPECT_NEAR(item.nll, at("nll", i), 1e-4 * at("nll", i));
    EXPECT_NEAR(item.exact_memorization, at("exact_memorization", i), 1e-12);
    EXPECT_NEAR(item.extraction_strength, at("extraction_strength", i), 1e-12);
    EXPECT_NEAR(item.min_k, at("min_k", i), 1e-4 * at("min_k", i));
    EXPECT_NEAR(item.min_k_plus_plus, at("min_k_plus_plus", i), 1e-4);
    EXPECT_NEAR(item.zlib.value_or(NAN),
                at("nll", i) / at("tokens", i) / static_cast<double>(20 + i), 1e-4);
    EXPECT_EQ(item.kl.has_value(), has_kl);
    if (has_kl) {
      EXPECT_NEAR(*item.kl, at("kl", i), 1e-4);
    }
    const auto expect = [&](const std::optional<double>& actual, const char* name,
                            double tolerance) {
      expect_optional(actual, at(name, i), tolerance, name);
    };
    expect(item.letter_correct, "letter_correct", 0);
    expect(item.letter_probability, "letter_probability", 1e-4);
    expect(item.text_correct, "text_correct", 0);
    expect(item.open_correct, "open_correct", 0);
    expect(item.option_probability, "option_probability", 1e-4);
    expect(item.paraphrase_probability, "paraphrase_probability", 1e-5);
    expect(item.truth_ratio, "truth_ratio", 1e-3);
    expect(item.truth_ratio_arithmetic, "truth_ratio_arithmetic", 1e-3);
    expect_optional(
        item.both_correct,
        at("letter_correct", i) < 0 ? -1 : at("letter_correct", i) * at("text_correct", i), 0,
        "both_correct");
  }

  dist::Communicator world_ = dist::Communicator::world();
  GoldenCase golden_{GetParam()};
  io::TokenSet set_ = golden_.token_set();
};

TEST_P(EvaluateTest, EqualsMetricsFromLogitsOfTransformersOnEveryLayout) {
  golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout& layout) {
    const SetMetrics metrics = evaluate(model, layout, set_, 50);
    EXPECT_EQ(metrics.items, set_.items.count());
    EXPECT_EQ(std::ssize(metrics.per_item), metrics.items);
    double nll = 0;
    double probability = 0;
    double memorized = 0;
    for (std::int64_t i = 0; i < metrics.items; ++i) {
      const ItemMetrics& item = metrics.per_item[static_cast<std::size_t>(i)];
      expect_item(item, i, false);
      nll += at("nll", i) / at("tokens", i);
      probability += std::exp(-at("nll", i) / at("tokens", i));
      memorized += at("exact_memorization", i);
    }
    const auto n = static_cast<double>(metrics.items);
    EXPECT_NEAR(metrics.nll, nll / n, 1e-4 * nll / n);
    EXPECT_NEAR(metrics.answer_probability, probability / n, 1e-4);
    EXPECT_NEAR(metrics.exact_memorization, memorized / n, 1e-12);
    expect_mean(metrics.letter_accuracy, "letter_correct");
    expect_mean(metrics.letter_probability, "letter_probability");
    expect_mean(metrics.text_accuracy, "text_correct");
    expect_mean(metrics.open_accuracy, "open_correct");
    expect_mean(metrics.paraphrase_probability, "paraphrase_probability");
  });
}

TEST_P(EvaluateTest, DivergesFromAReferenceAsTheDistributionsOfTransformersDo) {
  const GoldenCase other("tied");
  golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout& layout) {
    const CausalLM reference(other.checkpoint(), other.config(), layout, {});
    const SetMetrics metrics = evaluate(model, layout, set_, 50, &reference);
    for (std::int64_t i = 0; i < metrics.items; ++i) {
      expect_item(metrics.per_item[static_cast<std::size_t>(i)], i, true);
    }
  });
}

TEST_P(EvaluateTest, SetWithoutChoicesHasNoChoiceMetrics) {
  set_.options = {{{}, {0}, {}}, {}, {}, {}};
  std::ranges::fill(set_.letter_position, -1);
  std::ranges::fill(set_.answer_index, -1);
  const dist::ParallelLayout layout(world_, 1);
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const SetMetrics metrics = evaluate(model, layout, set_, 50);
  EXPECT_FALSE(metrics.letter_accuracy || metrics.letter_probability || metrics.text_accuracy ||
               metrics.open_accuracy || metrics.both_accuracy || metrics.paraphrase_probability);
  EXPECT_FALSE(metrics.per_item[0].truth_ratio || metrics.per_item[0].option_probability);
  EXPECT_GT(metrics.nll, 0);
}

TEST_P(EvaluateTest, ItemWithoutSupervisedTokensIsAnError) {
  const auto begin = set_.items.target_mask.begin();
  std::fill(begin + set_.items.offsets[3], begin + set_.items.offsets[4], std::uint8_t{0});
  const dist::ParallelLayout layout(world_, 1);
  const CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  try {
    evaluate(model, layout, set_, 50);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const dist::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "set forget, sequence 3 has no supervised tokens; give the record an answer");
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, EvaluateTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral"),
                         [](const auto& one) { return std::string(one.param); });

}  // namespace
}  // namespace mrp::shard
