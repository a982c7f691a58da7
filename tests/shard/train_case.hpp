// Questions in every form that training knows, as a token set and as the parts it was made of.
#pragma once

#include <cstdint>
#include <vector>

#include "io/token_dataset.hpp"

namespace mrp::test {

using Tokens = std::vector<std::int32_t>;

/// The first part, then the second.
Tokens joined(Tokens first, const Tokens& second);

struct Question {
  Tokens prompt;              ///< up to the letter, or up to the text
  Tokens letters;             ///< one for each text; empty: no letter is asked for
  Tokens open_prompt;         ///< up to the text of an option
  std::vector<Tokens> texts;  ///< one: no wrong answers are known
  std::size_t right = 0;

  /// The supervised part of the item.
  Tokens answer() const;
};

struct TrainCase {
  std::vector<Question> questions;
  io::TokenSet set;
};

/// Multiple choice (items 0, 2, 4), a single answer (1, 3), an answer beside wrong ones (5), a text
/// that is supervised from its first token on (6).
TrainCase train_case(std::int64_t vocabulary);

}  // namespace mrp::test
