#include "jobs/forget_like.hpp"

#include <algorithm>
#include <iterator>

namespace mrp::jobs {

ForgetPhrases::ForgetPhrases(const io::TokenSet& forget, const io::TokenSet& retain) {
  const auto forgotten = phrases_of(forget);
  const auto kept = phrases_of(retain);
  std::ranges::set_difference(forgotten, kept, std::back_inserter(phrases_));
}

double ForgetPhrases::share(std::span<const std::int32_t> tokens) const {
  std::vector<Phrase> own;
  add_phrases(tokens, own);
  if (own.empty()) return 0;
  const auto found = std::ranges::count_if(
      own, [&](const Phrase& phrase) { return std::ranges::binary_search(phrases_, phrase); });
  return static_cast<double>(found) / static_cast<double>(own.size());
}

std::vector<ForgetPhrases::Phrase> ForgetPhrases::phrases_of(const io::TokenSet& set) {
  std::vector<Phrase> phrases;
  for (const io::Sequences* sequences : {&set.items, &set.options.sequences}) {
    for (std::int64_t i = 0; i < sequences->count(); ++i) {
      add_phrases(sequences->tokens(i), phrases);
    }
  }
  std::ranges::sort(phrases);
  const auto repeated = std::ranges::unique(phrases);
  phrases.erase(repeated.begin(), repeated.end());
  return phrases;
}

void ForgetPhrases::add_phrases(std::span<const std::int32_t> tokens,
                                std::vector<Phrase>& phrases) {
  for (std::size_t begin = 0; begin + kPhraseTokens <= tokens.size(); ++begin) {
    std::ranges::copy(tokens.subspan(begin, kPhraseTokens), phrases.emplace_back().begin());
  }
}

}  // namespace mrp::jobs
