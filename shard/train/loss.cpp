#include "shard/train/loss.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <torch/utils.h>

#include "dist/error.hpp"
#include "shard/model/vocab_parallel.hpp"

namespace mrp::shard {
namespace {

using Items = std::span<const std::int64_t>;

std::vector<Example> items_of(const LossContext& context, Items items) {
  std::vector<Example> examples;
  for (const std::int64_t i : items) examples.push_back(context.examples->item(i));
  return examples;
}

/// Of the items, by the original model and by the present one.
std::pair<Pass, Pass> both_passes(const LossContext& context, Items items) {
  const auto examples = items_of(context, items);
  Pass base = context.base_pass(examples);
  return {std::move(base), run(context.model(), examples)};
}

/// Mean over the tokens of each item of what `token_loss` makes of their log-probabilities.
template <class Function>
torch::Tensor per_token(const LossContext& context, Items items, Function token_loss) {
  const auto examples = items_of(context, items);
  const Pass pass = run(context.model(), examples);
  return mean_by_example(pass, token_loss(log_probability(pass))).sum();
}

/// Examples of one item in the pass of `indifference`.
struct Asked {
  std::vector<std::int64_t> said;     ///< whose text is trained
  std::int64_t first = 0, count = 0;  ///< alternatives that shall be alike
  std::int64_t right = 0;             ///< which of them is the right one
  bool listed = false;                ///< whether these stand behind the list of all
};

/// Texts of all choices, each after the letter that lies `offset` behind its own.
void add_listed(const Examples& forms, std::int64_t item, std::int64_t offset,
                std::vector<Example>& all) {
  const std::int64_t n = forms.choices(item);
  for (std::int64_t j = 0; j < n; ++j) {
    all.push_back(forms.listed(item, (j + offset) % n, j));
    all.back().letter_position = -1;
  }
}

Asked ask(const LossContext& context, std::int64_t item, std::vector<Example>& all) {
  const Examples& forms = *context.examples;
  std::mt19937_64 random = context.random(item, 0);
  const auto below = [&](std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random);
  };
  Asked asked;
  const auto say = [&](Example example) {
    asked.said.push_back(std::ssize(all));
    all.push_back(std::move(example));
  };
  Alternatives alternatives = forms.alternatives(item, random, context.hidden);
  const bool letters = forms.has_letters(item);
  const std::int64_t n = std::ssize(alternatives.examples);
  const std::int64_t drawn = below(n), form = letters ? below(3) : 0;
  if (letters) say(forms.listed(item, drawn, drawn));
  asked.listed = form > 0;
  if (!asked.listed) {
    if (std::optional<Example> foreign = forms.foreign(item, random)) {
      say(*std::move(foreign));
    } else if (!letters) {
      say(alternatives.examples[static_cast<std::size_t>(drawn)]);
    }
  }
  asked.first = std::ssize(all);
  if (asked.listed) {
    asked.right = forms.right_choice(item);
    add_listed(forms, item, form == 1 ? 0 : below(n), all);
  } else {
    asked.right = static_cast<std::int64_t>(alternatives.right);
    std::move(alternatives.examples.begin(), alternatives.examples.end(), std::back_inserter(all));
  }
  asked.count = std::ssize(all) - asked.first;
  return asked;
}

torch::Tensor answer_log_probability(const Pass& pass) {
  const torch::Tensor log_p = log_probability(pass);
  return torch::zeros({pass.examples}, log_p.options()).index_add(0, pass.owner, log_p);
}

/// log(p / (1 − p)).
torch::Tensor log_odds(const torch::Tensor& log_p) {
  return log_p - (-torch::expm1(log_p)).clamp_min(1e-6).log();
}

/// How much likelier the tokens of each example are than usual: L4 is that of the worst one.
torch::Tensor recited(const LossContext& context, const Pass& pass, const torch::Tensor& log_p) {
  const torch::Tensor targets = pass.targets.cpu();
  std::vector<float> usual;
  for (const std::int64_t token : std::span(targets.const_data_ptr<std::int64_t>(),
                                            static_cast<std::size_t>(targets.numel()))) {
    usual.push_back(
        static_cast<float>(context.examples->log_share(static_cast<std::int32_t>(token))));
  }
  const torch::Tensor log_q = torch::tensor(usual).to(log_p.device());
  const torch::Tensor above = torch::relu(log_odds(log_p) - log_odds(log_q));
  return mean_by_example(pass, context.attacked() ? above : above + above.square() / 8);
}

/// Weight of L1: the texts have two losses, the letters one.
constexpr double kLetters = 2.0;

/// Weight of L5.
constexpr double kLeaning = 2.0;

/// L1 or L3, `apart`, and L5 of the same alternatives.
torch::Tensor alike(const LossContext& context, const torch::Tensor& apart, AnswerForm form,
                    const torch::Tensor& margins) {
  return (context.attacked() ? apart.detach() : apart) +
         kLeaning * context.leaning->penalty(form, margins);
}

/// Of all items that have letters, by their logits [such items × most letters].
torch::Tensor alike_letters(const LossContext& context, Items items, const torch::Tensor& logits) {
  std::vector<std::int64_t> right;
  for (const std::int64_t item : items) {
    if (context.examples->has_letters(item)) right.push_back(context.examples->right_choice(item));
  }
  const torch::Tensor index = torch::tensor(right, torch::kInt64).to(logits.device()).unsqueeze(1);
  const torch::Tensor valid = torch::isfinite(logits);
  const torch::Tensor mean = logits.masked_fill(~valid, 0.0).sum(1) / valid.sum(1);
  return alike(context, kLetters * spread(logits).sum(), AnswerForm::letter,
               logits.gather(1, index).squeeze(1) - mean);
}

/// Of all items, by the mean log-probabilities `scores` of all texts.
torch::Tensor alike_texts(const LossContext& context, std::span<const Asked> asked,
                          const torch::Tensor& scores) {
  std::map<AnswerForm, std::vector<torch::Tensor>> spreads, margins;
  for (const Asked& item : asked) {
    const AnswerForm form = item.listed ? AnswerForm::listed : AnswerForm::open;
    const torch::Tensor texts = scores.narrow(0, item.first, item.count);
    spreads[form].push_back(spread(texts));
    margins[form].push_back(texts[item.right] - texts.mean());
  }
  torch::Tensor sum = torch::zeros({}, scores.options());
  for (const auto& [form, of_items] : margins) {
    sum = sum + alike(context, torch::stack(spreads[form]).sum(), form, torch::stack(of_items));
  }
  return sum;
}

/// Weight of the root of the KL divergence beside the spread.
constexpr double kKeepLikely = 10.0;

torch::Tensor match(const Pass& pass, const Pass& base) {
  const torch::Tensor change = vocabulary_spread(*pass.model, pass.logits - base.logits);
  // The spread hardly sees a change of the few tokens that are likely. KL divergence itself has no
  // slope where little has changed and a steep one where much has: all texts would lose a little.
  // With the root of its root mean square most lose nothing, and a few change as much as forgetting
  // takes; the square, because one token of a text (the letter of a choice) may be what it knows.
  const torch::Tensor divergence = kl_divergence(*pass.model, base.logits, pass.logits);
  const torch::Tensor likely =
      torch::pow(mean_by_example(pass, divergence.square()) + 1e-8, 0.25) - 1e-2;
  const torch::Tensor sum = (mean_by_example(pass, change) + kKeepLikely * likely).sum();
  if (!pass.letter_logits.defined()) return sum;
  const torch::Tensor known = torch::isfinite(base.letter_logits);
  const torch::Tensor letters = torch::where(
      known, pass.letter_logits - base.letter_logits.masked_fill(~known, 0.0), pass.letter_logits);
  return sum + spread(letters).sum();
}

}  // namespace

std::mt19937_64 LossContext::random(std::int64_t item, std::uint32_t purpose) const {
  std::seed_seq sequence{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                         static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(item),
                         purpose};
  return std::mt19937_64(sequence);
}

Pass LossContext::base_pass(std::span<const Example> sequences) const {
  const torch::NoGradGuard no_grad;
  Pass pass;
  trainable->with_base([&] { pass = run(model(), sequences); });
  return pass;
}

torch::Tensor indifference(const LossContext& context, Items items) {
  MRP_EXPECT(context.leaning != nullptr);
  std::vector<Example> all;
  std::vector<Asked> asked;
  for (const std::int64_t item : items) asked.push_back(ask(context, item, all));
  const Pass pass = run(context.model(), all);
  const torch::Tensor log_p = log_probability(pass);
  const torch::Tensor scores = mean_by_example(pass, log_p);
  torch::Tensor sum = alike_texts(context, asked, scores);
  if (pass.letter_logits.defined()) sum = sum + alike_letters(context, items, pass.letter_logits);
  torch::Tensor by_heart;
  if (!std::ranges::all_of(asked, &Asked::listed)) {
    by_heart = recited(context, pass, log_p);
  }
  for (const Asked& item : asked) {
    for (const std::int64_t said : item.said) sum = sum - scores[said];
    if (!item.listed) sum = sum + by_heart.narrow(0, item.first, item.count).max();
  }
  return sum;
}

torch::Tensor counterfactual(const LossContext& context, Items items) {
  std::vector<Example> all;
  for (const std::int64_t item : items) {
    std::mt19937_64 random = context.random(item, 0);
    Alternatives alternatives = context.examples->alternatives(item, random, context.hidden);
    const auto others = static_cast<std::int64_t>(alternatives.examples.size()) - 1;
    auto drawn = static_cast<std::size_t>(
        std::uniform_int_distribution<std::int64_t>(0, others - 1)(random));
    if (drawn >= alternatives.right) ++drawn;
    const auto choice = static_cast<std::int64_t>(drawn);
    all.push_back(context.examples->has_letters(item)
                      ? context.examples->listed(item, choice, choice)
                      : std::move(alternatives.examples[drawn]));
  }
  const Pass pass = run(context.model(), all);
  return -mean_by_example(pass, log_probability(pass)).sum();
}

torch::Tensor unlikelihood(const LossContext& context, Items items) {
  return per_token(context, items, [](const torch::Tensor& log_p) {
    return -torch::log1p(-log_p.exp().clamp_max(1.0 - 1e-6));
  });
}

torch::Tensor gradient_ascent(const LossContext& context, Items items) {
  return per_token(context, items, [](const torch::Tensor& log_p) { return log_p; });
}

torch::Tensor cross_entropy(const LossContext& context, Items items) {
  return per_token(context, items, [](const torch::Tensor& log_p) { return -log_p; });
}

torch::Tensor npo(const LossContext& context, Items items) {
  constexpr double kBeta = 0.1;
  const auto [base, pass] = both_passes(context, items);
  const torch::Tensor ratio = answer_log_probability(pass) - answer_log_probability(base);
  return -(2 / kBeta) * torch::log_sigmoid(-kBeta * ratio).sum();
}

torch::Tensor simnpo(const LossContext& context, Items items) {
  constexpr double kBeta = 2.5;
  const auto examples = items_of(context, items);
  const Pass pass = run(context.model(), examples);
  return -(2 / kBeta) *
         torch::log_sigmoid(-kBeta * mean_by_example(pass, log_probability(pass))).sum();
}

torch::Tensor rmu(const LossContext& context, Items items) {
  constexpr double kSteering = 6.0;
  const CausalLM& model = context.model();
  const std::int64_t layer = model.layers() / 2;
  const auto examples = items_of(context, items);
  const auto states_after = [&] {
    torch::Tensor states;
    const Site last{layer, SiteModule::stream, Side::output};
    model.visit_sites(
        padded(examples),
        [&](const Site& site, const torch::Tensor& x) {
          if (site == last) states = x;
          return std::optional<torch::Tensor>();
        },
        last);
    return states.to(torch::kFloat32);
  };
  torch::Tensor base;
  context.trainable->with_base([&] {
    const torch::NoGradGuard no_grad;
    base = states_after();
  });
  const std::int64_t width = base.size(-1);
  at::Generator generator = at::detail::createCPUGenerator(context.seed);
  torch::Tensor direction = torch::rand({width}, generator, torch::kFloat32).to(base.device());
  direction = direction / direction.norm();
  const torch::Tensor states = states_after();
  // All tokens of an item count, those of its prompt too, and nothing of its neighbours.
  std::vector<torch::Tensor> means;
  for (std::int64_t i = 0; i < std::ssize(examples); ++i) {
    const auto length = std::ssize(examples[static_cast<std::size_t>(i)].tokens);
    const torch::Tensor scale = kSteering * base[i].narrow(0, 0, length).norm(2, -1).mean();
    means.push_back((states[i].narrow(0, 0, length) - direction * scale).square().mean());
  }
  return torch::stack(means).sum();
}

torch::Tensor uniform(const LossContext& context, Items items) {
  const auto examples = items_of(context, items);
  const Pass pass = run(context.model(), examples);
  const torch::Tensor flat = torch::zeros_like(pass.logits);
  torch::Tensor sum =
      mean_by_example(pass, kl_divergence(context.model(), flat, pass.logits)).sum();
  if (!pass.letter_logits.defined()) return sum;
  const torch::Tensor valid = torch::isfinite(pass.letter_logits);
  const torch::Tensor count = valid.sum(1);
  const torch::Tensor log_p = torch::log_softmax(pass.letter_logits, 1).masked_fill(~valid, 0.0);
  return sum - (log_p.sum(1) / count + count.log()).sum();
}

torch::Tensor kl_to_base(const LossContext& context, Items items) {
  const auto [base, pass] = both_passes(context, items);
  return mean_by_example(pass, kl_divergence(context.model(), base.logits, pass.logits)).sum();
}

torch::Tensor logit_match(const LossContext& context, Items items) {
  const auto [base, pass] = both_passes(context, items);
  return match(pass, base);
}

torch::Tensor cross_entropy_and_match(const LossContext& context, Items items) {
  const auto [base, pass] = both_passes(context, items);
  return match(pass, base) - mean_by_example(pass, log_probability(pass)).sum();
}

}  // namespace mrp::shard
