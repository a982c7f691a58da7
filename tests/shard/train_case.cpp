#include "shard/train_case.hpp"

#include <random>
#include <string>

namespace mrp::test {
namespace {

class Random {
 public:
  explicit Random(std::int64_t vocabulary) : vocabulary_(static_cast<std::uint64_t>(vocabulary)) {}

  Tokens tokens(std::size_t count) {
    Tokens drawn;
    for (std::size_t t = 0; t < count; ++t) {
      drawn.push_back(static_cast<std::int32_t>(random_() % vocabulary_));
    }
    return drawn;
  }

 private:
  std::mt19937_64 random_{5};
  std::uint64_t vocabulary_;
};

void append(io::Sequences& to, const Tokens& prompt, const Tokens& answer) {
  const Tokens all = joined(prompt, answer);
  std::vector<std::uint8_t> mask;
  for (std::size_t t = 0; t < all.size(); ++t) {
    mask.push_back(t + 1 >= prompt.size() && t + 1 < all.size() ? 1 : 0);
  }
  to.append(all, mask);
}

void add_option(io::Options& options, std::size_t item, std::size_t choice, io::OptionForm form,
                const Tokens& prompt, const Tokens& text) {
  append(options.sequences, prompt, text);
  options.item.push_back(static_cast<std::int64_t>(item));
  options.choice.push_back(static_cast<std::int32_t>(choice));
  options.form.push_back(form);
}

void add_options(io::Options& options, std::size_t item, const Question& question) {
  for (std::size_t c = 0; c < question.letters.size(); ++c) {
    add_option(options, item, c, io::OptionForm::list,
               joined(question.prompt, {question.letters[c]}), question.texts[c]);
  }
  for (std::size_t c = 0; question.texts.size() > 1 && c < question.texts.size(); ++c) {
    add_option(options, item, c, io::OptionForm::open, question.open_prompt, question.texts[c]);
  }
}

}  // namespace

Tokens joined(Tokens first, const Tokens& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Tokens Question::answer() const {
  return letters.empty() ? texts[right] : joined({letters[right]}, texts[right]);
}

TrainCase train_case(std::int64_t vocabulary) {
  Random random(vocabulary);
  TrainCase result;
  for (std::size_t i = 0; i < 6; ++i) {
    Question question{random.tokens(3 + i % 2), {}, random.tokens(2 + i % 3), {}, 0};
    const std::size_t texts = i == 5 ? 4 : i % 2 == 0 ? 3 : 1;
    for (std::size_t c = 0; c < texts; ++c)
      question.texts.push_back(random.tokens(1 + (i + c) % 3));
    if (i % 2 == 0) question.letters = {7, 3, 9};
    question.right = i % 2 == 0 ? (i / 2) % 3 : 0;
    result.questions.push_back(question);
  }
  result.questions.push_back({random.tokens(1), {}, {}, {random.tokens(5)}, 0});

  io::TokenSet& set = result.set;
  set.name = "forget";
  for (std::size_t i = 0; i < result.questions.size(); ++i) {
    const Question& question = result.questions[i];
    const bool asks = !question.letters.empty();
    append(set.items, question.prompt, question.answer());
    set.ids.push_back("item-" + std::to_string(i));
    set.answer_index.push_back(question.texts.size() > 1 ? static_cast<std::int32_t>(question.right)
                                                         : -1);
    set.letter_position.push_back(asks ? std::ssize(question.prompt) - 1 : -1);
    set.letter_token_ids = joined(set.letter_token_ids, question.letters);
    set.letter_offsets.push_back(std::ssize(set.letter_token_ids));
    add_options(set.options, i, question);
  }
  return result;
}

}  // namespace mrp::test
