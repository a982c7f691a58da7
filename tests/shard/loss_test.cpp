// Losses against their formulas over the whole vocabulary, from the logits of a model on one rank.
#include "shard/train/loss.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "shard/evaluate.hpp"
#include "shard/golden_case.hpp"
#include "shard/loss_oracle.hpp"
#include "shard/train_case.hpp"

namespace mrp::shard {
namespace {

using test::all_weights;
using test::joined;
using test::move;
using test::Oracle;
using test::Question;
using test::spread_of;
using test::Tokens;

double softplus(double x) {
  return std::log1p(std::exp(x));
}

class LossTest : public testing::Test {
 protected:
  using OfItem = std::function<double(const Question&)>;

  /// Calls f(trainable) with the changed model on every layout of the ranks.
  void on_all_layouts(const std::function<void(Trainable&)>& f) {
    golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout&) {
      Trainable trainable(model, all_weights());
      move(trainable);
      f(trainable);
    });
  }

  double value(const Loss& loss, Trainable& trainable, std::vector<std::int64_t> items,
               std::int64_t step = 0) const {
    Leaning leaning;
    return loss({&trainable, asked_, 3, step, hidden_, &leaning}, items).item<double>();
  }

  void expect_sum(const Loss& loss, const OfItem& of_item) {
    double expected = 0;
    for (const std::int64_t i : items_) expected += of_item(question(i));
    on_all_layouts([&](Trainable& trainable) {
      EXPECT_NEAR(value(loss, trainable, items_), expected,
                  2e-5 * std::max(1.0, std::abs(expected)));
    });
  }

  /// Every value of one item over many steps is one of `candidates`, and each of them occurs; the
  /// choice is the same on any number of ranks.
  void expect_candidates(const Loss& loss, std::int64_t item, const std::vector<double>& candidates,
                         bool all) {
    std::vector<double> alone;
    std::set<std::size_t> seen;
    constexpr std::int64_t kSteps = 150;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      alone.push_back(value(loss, oracle_.trainable(), {item}, step));
      const auto nearest = std::ranges::min_element(
          candidates, {}, [&](double candidate) { return std::abs(candidate - alone.back()); });
      ASSERT_NEAR(alone.back(), *nearest, 2e-5 * std::max(1.0, std::abs(*nearest))) << step;
      seen.insert(static_cast<std::size_t>(nearest - candidates.begin()));
    }
    EXPECT_GE(seen.size(), all ? candidates.size() : 10);
    on_all_layouts([&](Trainable& trainable) {
      for (std::size_t step = 0; step < 8; ++step) {
        EXPECT_NEAR(value(loss, trainable, {item}, static_cast<std::int64_t>(step)), alone[step],
                    2e-5 * std::max(1.0, std::abs(alone[step])));
      }
    });
  }

  const Question& question(std::int64_t i) const {
    return case_.questions[static_cast<std::size_t>(i)];
  }
  torch::Tensor answer_log_p(const Question& q, bool base = false) const {
    return oracle_.log_p(q.prompt, q.answer(), base);
  }
  torch::Tensor answer_logits(const Question& q, bool base = false) const {
    return oracle_.logits(q.prompt, q.answer(), base);
  }
  /// Of each token of the answer.
  torch::Tensor kl(const Question& q) const {
    const torch::Tensor log_p = answer_logits(q, true).log_softmax(1);
    const torch::Tensor log_q = answer_logits(q).log_softmax(1);
    return (log_p.exp() * (log_p - log_q)).sum(1);
  }
  /// Spreads of the change of the logits, and 10 times the root of the root mean square of KL.
  double match(const Question& q) const {
    const torch::Tensor change = answer_logits(q) - answer_logits(q, true);
    double sum = 0;
    for (std::int64_t t = 0; t < change.size(0); ++t) sum += spread_of(change[t]);
    const double square = kl(q).square().mean().item<double>();
    sum = sum / static_cast<double>(change.size(0)) + 10 * (std::pow(square + 1e-8, 0.25) - 1e-2);
    return q.letters.empty() ? sum : sum + spread_of(oracle_.letters(q) - oracle_.letters(q, true));
  }
  /// Prompt and answer, of the form without letters. A text without a prompt is cut in the middle.
  std::pair<Tokens, Tokens> parts(std::int64_t i) const {
    const Question& q = question(i);
    const Tokens& prompt = q.letters.empty() ? q.prompt : q.open_prompt;
    const Tokens all = joined(prompt, q.letters.empty() ? q.answer() : q.texts[q.right]);
    const auto cut = prompt.size() > 1 ? std::ssize(prompt) : std::ssize(all) / 2;
    return {Tokens(all.begin(), all.begin() + cut), Tokens(all.begin() + cut, all.end())};
  }
  /// Prompt of one question, answer of another.
  double substituted(std::int64_t i, std::int64_t j) const {
    return oracle_.mean_log_p(parts(i).first, parts(j).second);
  }
  /// Log of how often each token stands in `times` times the answers, at least once, by all: fp64
  /// [vocabulary].
  torch::Tensor log_shares(double times) const {
    torch::Tensor counts = torch::zeros({golden_.config().vocab_size}, torch::kFloat64);
    for (const std::int64_t i : items_) {
      for (const std::int32_t token : parts(i).second) counts[token] += times;
    }
    return (counts.clamp_min(1) / counts.sum()).log();
  }

  /// Scores of the texts of a question in the open: fp64 [texts].
  torch::Tensor open_scores(const Question& q) const {
    std::vector<double> scores;
    for (const Tokens& text : q.texts) scores.push_back(oracle_.mean_log_p(q.open_prompt, text));
    return torch::tensor(scores, torch::kFloat64);
  }
  double listed(const Question& q, std::size_t letter, std::size_t text) const {
    return oracle_.mean_log_p(joined(q.prompt, {q.letters[letter]}), q.texts[text]);
  }
  /// Scores of the texts behind the list of three, for each offset between texts and letters.
  std::vector<torch::Tensor> listed_scores(const Question& q) const {
    std::vector<torch::Tensor> all;
    for (std::size_t offset = 0; offset < 3; ++offset) {
      std::vector<double> scores;
      for (std::size_t c = 0; c < 3; ++c) scores.push_back(listed(q, (c + offset) % 3, c));
      all.push_back(torch::tensor(scores, torch::kFloat64));
    }
    return all;
  }
  std::vector<double> listed_spreads(const Question& q) const {
    std::vector<double> spreads;
    for (const torch::Tensor& scores : listed_scores(q)) spreads.push_back(spread_of(scores));
    return spreads;
  }
  /// L4 of a question beside others whose tokens have these `log_shares`.
  double recited(const Question& q, const torch::Tensor& log_shares) const {
    const auto log_odds = [](const torch::Tensor& log_p) {
      return log_p - torch::log1p(-log_p.exp());
    };
    double most = 0;
    for (const Tokens& text : q.texts) {
      const torch::Tensor usual = log_shares.index_select(
          0, torch::tensor(std::vector<std::int64_t>(text.begin(), text.end())));
      const torch::Tensor above =
          torch::relu(log_odds(oracle_.log_p(q.open_prompt, text)) - log_odds(usual));
      const torch::Tensor counted = hidden_.empty() ? above + above.square() / 8 : above;
      most = std::max(most, counted.mean().item<double>());
    }
    return most;
  }

  dist::Communicator world_ = dist::Communicator::world();
  dist::Communicator self_ = dist::Communicator::self();
  dist::ParallelLayout alone_{self_, 1};
  test::GoldenCase golden_{"grouped"};
  test::TrainCase case_ = test::train_case(golden_.config().vocab_size);
  Examples examples_{case_.set};
  const Examples* asked_ = &examples_;
  std::vector<std::int64_t> hidden_;  ///< at attacked weights
  Oracle oracle_{golden_, alone_};
  const std::vector<std::int64_t> items_{0, 1, 2, 3, 4, 5, 6};
};

TEST_F(LossTest, PerToken) {
  expect_sum(cross_entropy,
             [&](const Question& q) { return -answer_log_p(q).mean().item<double>(); });
  expect_sum(gradient_ascent,
             [&](const Question& q) { return answer_log_p(q).mean().item<double>(); });
  expect_sum(unlikelihood, [&](const Question& q) {
    return -(1 - answer_log_p(q).exp()).log().mean().item<double>();
  });
}

TEST_F(LossTest, PerAnswer) {
  expect_sum(npo, [&](const Question& q) {
    const double ratio = (answer_log_p(q) - answer_log_p(q, true)).sum().item<double>();
    return 2 / 0.1 * softplus(0.1 * ratio);
  });
  expect_sum(simnpo, [&](const Question& q) {
    return 2 / 2.5 * softplus(2.5 * answer_log_p(q).mean().item<double>());
  });
}

TEST_F(LossTest, OverTheVocabulary) {
  expect_sum(kl_to_base, [&](const Question& q) { return kl(q).mean().item<double>(); });
  const auto from_uniform = [](const torch::Tensor& log_p) {
    return -log_p.mean().item<double>() - std::log(static_cast<double>(log_p.size(-1)));
  };
  expect_sum(uniform, [&](const Question& q) {
    const double sum = from_uniform(answer_logits(q).log_softmax(1));
    return q.letters.empty() ? sum : sum + from_uniform(oracle_.letters(q).log_softmax(0));
  });
  expect_sum(logit_match, [&](const Question& q) { return match(q); });
  expect_sum(cross_entropy_and_match,
             [&](const Question& q) { return match(q) - answer_log_p(q).mean().item<double>(); });
}

TEST_F(LossTest, SteeredStates) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  torch::Tensor direction =
      torch::rand({golden_.config().hidden_size}, generator).to(torch::kFloat64);
  direction = direction / direction.norm();
  expect_sum(rmu, [&](const Question& q) {
    const Tokens all = joined(q.prompt, q.answer());
    const torch::Tensor base = oracle_.middle(all, true);
    const torch::Tensor target = direction * 6 * base.norm(2, -1).mean();
    return (oracle_.middle(all, false) - target).square().mean().item<double>();
  });
}

TEST_F(LossTest, IndifferenceBetweenChoices) {
  const Question& q = question(2);
  std::vector<double> spreads = listed_spreads(q);
  spreads.push_back(spread_of(open_scores(q)));
  std::vector<double> candidates;
  for (std::size_t drawn = 0; drawn < 3; ++drawn) {
    for (const double apart : spreads) {
      // The letters are asked for once: in the sequence that is drawn.
      candidates.push_back(2 * spread_of(oracle_.letters(q)) - listed(q, drawn, drawn) + apart);
    }
  }
  expect_candidates(indifference, 2, candidates, true);
}

TEST_F(LossTest, IndifferenceTellsHowTheModelLeans) {
  const Question& q = question(2);
  const auto margin = [&](const torch::Tensor& scores) {
    return (scores[static_cast<std::int64_t>(q.right)] - scores.mean()).item<double>();
  };
  std::vector<double> listed_margins;
  for (const torch::Tensor& scores : listed_scores(q)) listed_margins.push_back(margin(scores));
  on_all_layouts([&](Trainable& trainable) {
    int open = 0;
    for (std::int64_t step = 0; step < 12; ++step) {
      Leaning leaning;
      indifference({&trainable, asked_, 3, step, {}, &leaning}, std::vector<std::int64_t>{2});
      leaning.update(self_);
      const torch::Tensor means = 4 * leaning.means();
      EXPECT_NEAR(means[0].item<double>(), margin(oracle_.letters(q)), 1e-4);
      const double in_list = means[1].item<double>(), in_open = means[2].item<double>();
      if (in_list != 0) {
        EXPECT_THAT(listed_margins, testing::Contains(testing::DoubleNear(in_list, 1e-4)));
      }
      EXPECT_NEAR(in_open, in_list == 0 ? margin(open_scores(q)) : 0, 1e-4);
      open += in_list == 0 ? 1 : 0;
    }
    EXPECT_THAT(open, testing::AllOf(testing::Gt(0), testing::Lt(12)));
  });
}

TEST_F(LossTest, OfAlikenessLeaningAloneIsTrainedAtAttackedWeights) {
  Trainable& trainable = oracle_.trainable();
  const auto gradient = [&](const std::function<torch::Tensor()>& loss) {
    trainable.apply();
    loss().backward();
    return trainable.applied().back().grad().clone();
  };
  const auto of_indifference = [&](std::vector<std::int64_t> hidden, float mean) {
    Leaning leaning;
    leaning.means().fill_(mean);
    const LossContext context{&trainable, asked_, 3, 0, hidden, &leaning};
    return gradient([&] { return indifference(context, std::vector<std::int64_t>{2}); });
  };
  const torch::Tensor plain = of_indifference(items_, 0), against = of_indifference(items_, 1);
  const torch::Tensor leaning = of_indifference({}, 1) - of_indifference({}, 0);
  EXPECT_GT(leaning.norm().item<double>(), 1e-3);
  EXPECT_LT(test::relative_difference(against - plain, leaning), 1e-4);
  // What is left without it is the text that is said.
  double nearest = 1;
  for (std::int64_t c = 0; c < 3; ++c) {
    const std::vector<Example> text{examples_.listed(2, c, c)};
    const torch::Tensor said =
        gradient([&] { return -log_probability(run(trainable.model(), text)).mean(); });
    nearest = std::min(nearest, test::relative_difference(plain, said));
  }
  EXPECT_LT(nearest, 1e-4);
}

TEST_F(LossTest, IndifferenceBetweenAnswers) {
  const Question& wrong = question(5);
  const torch::Tensor scores = open_scores(wrong);
  std::vector<double> candidates;
  for (std::int64_t c = 0; c < 4; ++c) {
    candidates.push_back(spread_of(scores) - scores[c].item<double>());
  }
  expect_candidates(indifference, 5, candidates, true);
  // Without wrong answers three of others stand beside it; after an attack, hidden ones.
  std::vector<double> answers;
  for (const std::int64_t j : items_) answers.push_back(substituted(1, j));
  const auto expect_beside = [&](const std::vector<std::size_t>& others) {
    candidates.clear();
    const std::size_t m = others.size();
    for (std::size_t n = 0; n < m * m * m; ++n) {
      const std::vector<double> four{answers[1], answers[others[n % m]], answers[others[n / m % m]],
                                     answers[others[n / m / m]]};
      const double apart = spread_of(torch::tensor(four, torch::kFloat64));
      for (const double said : four) candidates.push_back(apart - said);
    }
    expect_candidates(indifference, 1, candidates, false);
  };
  expect_beside({0, 2, 3, 4, 5, 6});
  hidden_ = {1, 3, 6};
  expect_beside({3, 6});
}

TEST_F(LossTest, IndifferenceSaysWhatTheOthersKnow) {
  // So many others that a token which none of them has is rarer than the model thinks.
  constexpr int kTimes = 100;
  io::TokenSet many;
  for (int n = 0; n < kTimes; ++n) many.append(case_.set, items_);
  const Examples others(many);
  const Examples with_others(case_.set, &others);
  asked_ = &with_others;
  const auto in_the_open = [&](std::int64_t item) {
    const double by_heart = recited(question(item), log_shares(kTimes));
    EXPECT_GT(by_heart, 0.01);
    std::vector<double> values;
    for (const std::int64_t j : items_) {
      values.push_back(spread_of(open_scores(question(item))) - substituted(item, j) + by_heart);
    }
    return values;
  };
  for (const auto& hidden : {items_, std::vector<std::int64_t>()}) {
    hidden_ = hidden;
    expect_candidates(indifference, 5, in_the_open(5), true);
  }
  // With letters, those and the text of the drawn one besides, and in two of three forms the list.
  const Question& q = question(2);
  std::vector<double> candidates;
  for (std::size_t drawn = 0; drawn < 3; ++drawn) {
    const double letters = 2 * spread_of(oracle_.letters(q)) - listed(q, drawn, drawn);
    for (const double open : in_the_open(2)) candidates.push_back(letters + open);
    for (const double apart : listed_spreads(q)) candidates.push_back(letters + apart);
  }
  expect_candidates(indifference, 2, candidates, false);
}

TEST_F(LossTest, CounterfactualAnswers) {
  const Question& listed = question(4);
  std::vector<double> candidates;
  for (std::size_t c = 0; c < 3; ++c) {
    if (c == listed.right) continue;
    candidates.push_back(
        -oracle_.mean_log_p(joined(listed.prompt, {listed.letters[c]}), listed.texts[c]));
  }
  expect_candidates(counterfactual, 4, candidates, true);
  candidates.clear();
  for (const std::int64_t j : items_) {
    if (j != 6) candidates.push_back(-substituted(6, j));
  }
  expect_candidates(counterfactual, 6, candidates, true);
}

TEST_F(LossTest, NothingIsLostAtTheStart) {
  on_all_layouts([&](Trainable& trainable) {
    trainable.apply_base();
    EXPECT_NEAR(value(logit_match, trainable, items_), 0.0, 1e-6);
    EXPECT_NEAR(value(kl_to_base, trainable, items_), 0.0, 1e-5);
    EXPECT_NEAR(value(npo, trainable, items_), 7 * 20 * std::log(2.0), 1e-3);
  });
}

TEST_F(LossTest, CrossEntropyIsTheNllOfEvaluate) {
  golden_.on_all_layouts(world_, {}, [&](CausalLM& model, const dist::ParallelLayout& layout) {
    const auto measured = evaluate(model, layout, golden_.token_set(), 40);
    Trainable trainable(model, all_weights());
    const io::TokenSet set = golden_.token_set();
    const Examples forms(set);
    double sum = 0;
    for (std::int64_t i = 0; i < forms.count(); ++i) {
      const double loss = cross_entropy({&trainable, &forms, 0, 0}, std::vector{i}).item<double>();
      const double nll = measured.per_item[static_cast<std::size_t>(i)].nll_per_token();
      EXPECT_NEAR(loss, nll, 1e-5 * nll);
      sum += loss;
    }
    EXPECT_NEAR(sum / static_cast<double>(forms.count()), measured.nll, 1e-5 * measured.nll);
  });
}

}  // namespace
}  // namespace mrp::shard
