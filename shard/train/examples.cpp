#include "shard/train/examples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

/// How many answers of other items stand beside the right one.
constexpr std::size_t kSubstitutes = 3;

Example copy(const io::Sequences& sequences, std::int64_t i) {
  const auto tokens = sequences.tokens(i);
  const auto mask = sequences.mask(i);
  return {{tokens.begin(), tokens.end()}, {mask.begin(), mask.end()}, -1, {}};
}

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

Examples::Examples(const io::TokenSet& set, const Examples* others)
    : set_(&set), others_(others), listed_(set.ids.size()), open_(set.ids.size()) {
  for (std::size_t o = 0; o < set.options.item.size(); ++o) {
    if (set.options.choice[o] < 0) continue;
    auto& of_form = set.options.form[o] == io::OptionForm::list ? listed_ : open_;
    auto& of_item = of_form[index(set.options.item[o])];
    const auto choice = static_cast<std::size_t>(set.options.choice[o]);
    if (of_item.size() <= choice) of_item.resize(choice + 1, -1);
    of_item[choice] = static_cast<std::int64_t>(o);
  }
  for (std::int64_t i = 0; others != nullptr && i < others->count(); ++i) {
    for (const std::int32_t token : others->parts(i).answer) {
      ++counts_[token];
      ++counted_;
    }
  }
}

bool Examples::has_letters(std::int64_t i) const {
  return set_->asks_for_letter(i);
}

std::int64_t Examples::choices(std::int64_t i) const {
  return std::ssize(open_[index(i)]);
}

std::int64_t Examples::right_choice(std::int64_t i) const {
  return set_->answer_index[index(i)];
}

Example Examples::item(std::int64_t i) const {
  Example example = copy(set_->items, i);
  if (!has_letters(i)) return example;
  example.letter_position = set_->letter_position[index(i)];
  const auto letters = set_->letters(i);
  example.letters.assign(letters.begin(), letters.end());
  return example;
}

Example Examples::listed(std::int64_t i, std::int64_t letter, std::int64_t choice) const {
  Example example = copy(set_->options.sequences, listed_[index(i)][index(choice)]);
  example.letter_position = set_->letter_position[index(i)];
  const auto letters = set_->letters(i);
  example.letters.assign(letters.begin(), letters.end());
  example.tokens[index(example.letter_position + 1)] = example.letters[index(letter)];
  return example;
}

Example Examples::open(std::int64_t i, std::int64_t choice) const {
  return copy(set_->options.sequences, open_[index(i)][index(choice)]);
}

Examples::Parts Examples::parts(std::int64_t i) const {
  const bool open_form = has_letters(i);
  const io::Sequences& sequences = open_form ? set_->options.sequences : set_->items;
  const std::int64_t at = open_form ? open_[index(i)][index(right_choice(i))] : i;
  const auto tokens = sequences.tokens(at);
  const auto mask = sequences.mask(at);
  auto prompt = std::find(mask.begin(), mask.end(), std::uint8_t{1}) - mask.begin() + 1;
  if (prompt == 1) prompt = std::max<std::int64_t>(std::ssize(tokens) / 2, 1);
  return {tokens.first(index(prompt)), tokens.subspan(index(prompt))};
}

Example Examples::substituted(std::int64_t i, std::int64_t j) const {
  return join(parts(i), parts(j));
}

std::optional<Example> Examples::foreign(std::int64_t i, std::mt19937_64& random) const {
  if (others_ == nullptr || others_->count() == 0) return {};
  std::uniform_int_distribution<std::int64_t> other(0, others_->count() - 1);
  return join(parts(i), others_->parts(other(random)));
}

double Examples::log_share(std::int32_t token) const {
  const auto found = counts_.find(token);
  return std::log((found == counts_.end() ? 1 : found->second) / counted_);
}

Example Examples::join(const Parts& question, const Parts& answered) {
  const auto prompt = question.prompt, answer = answered.answer;
  Example example;
  example.tokens.assign(prompt.begin(), prompt.end());
  example.tokens.insert(example.tokens.end(), answer.begin(), answer.end());
  example.mask.assign(example.tokens.size(), 0);
  std::fill(example.mask.begin() + std::ssize(prompt) - 1, example.mask.end() - 1, 1);
  return example;
}

Alternatives Examples::alternatives(std::int64_t i, std::mt19937_64& random,
                                    std::span<const std::int64_t> among) const {
  Alternatives found;
  for (std::int64_t c = 0; c < choices(i); ++c) found.examples.push_back(open(i, c));
  if (choices(i) > 1) {
    found.right = index(right_choice(i));
    return found;
  }
  if (count() < 2) {
    throw dist::InputError(
        fmt::format("set {}, item \"{}\": no other answers can be drawn from a set of one item; "
                    "give the record "
                    "wrong_answers, or choose another refine.forget_loss",
                    set_->name, set_->ids[index(i)]));
  }
  found.examples = {substituted(i, i)};
  const auto is_other = [&](std::int64_t j) { return j != i; };
  const bool of_all = std::ranges::none_of(among, is_other);
  std::uniform_int_distribution<std::int64_t> drawn(0, (of_all ? count() : std::ssize(among)) - 1);
  while (found.examples.size() <= kSubstitutes) {
    const std::int64_t n = drawn(random), j = of_all ? n : among[index(n)];
    if (is_other(j)) found.examples.push_back(substituted(i, j));
  }
  return found;
}

std::int64_t Examples::alternative_tokens(std::int64_t i) const {
  const std::int64_t texts = choices(i) > 1 ? choices(i) : std::int64_t{kSubstitutes} + 1;
  return (texts + 1) * set_->items.length(i);
}

std::int64_t Examples::without_choices() const {
  return std::count_if(open_.begin(), open_.end(), [](const auto& own) { return own.size() < 2; });
}

}  // namespace mrp::shard
