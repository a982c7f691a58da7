// Which texts repeat what is to be forgotten.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "io/token_dataset.hpp"

namespace mrp::jobs {

/// A sample is dropped if more than this share of its phrases is found in the forget set alone: a
/// single one in a short text, since a few words of a topic are enough to keep much of it in place.
constexpr double kForgetLikeShare = 0.01;
/// Tokens of a phrase.
constexpr std::size_t kPhraseTokens = 5;

/// The runs of kPhraseTokens tokens that occur in items or options of the forget set and nowhere in
/// the retain set: not the words that questions about anything are asked with.
class ForgetPhrases {
 public:
  ForgetPhrases(const io::TokenSet& forget, const io::TokenSet& retain);

  /// Share of the phrases of `tokens` that are among these; 0 if there is none.
  double share(std::span<const std::int32_t> tokens) const;

 private:
  using Phrase = std::array<std::int32_t, kPhraseTokens>;
  static std::vector<Phrase> phrases_of(const io::TokenSet& set);
  static void add_phrases(std::span<const std::int32_t> tokens, std::vector<Phrase>& phrases);

  std::vector<Phrase> phrases_;  // ascending
};

}  // namespace mrp::jobs
