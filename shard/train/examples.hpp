// Training sequences in every form of an item: as it stands, with another choice, with a
// substituted answer.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <unordered_map>
#include <vector>

#include "io/token_dataset.hpp"

namespace mrp::shard {

/// One sequence; mask[t] = 1 where token t + 1 is supervised.
struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> mask;
  std::int64_t letter_position = -1;  ///< position that predicts a letter, −1 if none is asked for
  std::vector<std::int32_t> letters;  ///< the valid ones
};

/// Answers to one item, the right one among them, in forms whose scores can be compared.
struct Alternatives {
  std::vector<Example> examples;
  std::size_t right = 0;
};

/// The forms of the items of one set. Refers to the set, which must outlive it, as must `others`.
class Examples {
 public:
  /// `others`: whose answers a model gives that never learned those of `set`; null if not known.
  explicit Examples(const io::TokenSet& set, const Examples* others = nullptr);

  std::int64_t count() const { return set_->items.count(); }
  /// The sequence that stands for the item, with its letters if it has any.
  Example item(std::int64_t i) const;
  /// Whether the item asks for a letter.
  bool has_letters(std::int64_t i) const;
  /// Number of texts to choose from, the right one among them; 0 if there are none.
  std::int64_t choices(std::int64_t i) const;
  /// List form: `letter` in the prompt, the text of `choice` supervised. @pre has_letters(i)
  Example listed(std::int64_t i, std::int64_t letter, std::int64_t choice) const;
  /// The question without the list, the text of `choice` supervised.
  Example open(std::int64_t i, std::int64_t choice) const;
  /// The prompt of item i and the answer of item j, the open form of those that ask for a letter.
  /// Of a text that is supervised from its first token on, the first half is the prompt.
  Example substituted(std::int64_t i, std::int64_t j) const;
  /// The same with an answer of the others, drawn uniformly; nothing if there are none.
  std::optional<Example> foreign(std::int64_t i, std::mt19937_64& random) const;
  /// Log of the share of a token in the answers of the others; one that none has counts once.
  /// Infinite if there are no others.
  double log_share(std::int32_t token) const;
  std::int64_t right_choice(std::int64_t i) const;

  /// Own choices where the item has them, else the right answer beside answers of other items: of
  /// all, or of `among` where these have another.
  /// @throws InputError if the item has no choices and the set no other item.
  Alternatives alternatives(std::int64_t i, std::mt19937_64& random,
                            std::span<const std::int64_t> among = {}) const;
  /// Tokens that `alternatives` has about, for planning batches.
  std::int64_t alternative_tokens(std::int64_t i) const;
  /// Number of items that have no choices of their own.
  std::int64_t without_choices() const;

 private:
  struct Parts {
    std::span<const std::int32_t> prompt, answer;
  };
  /// Of the form that does not ask for a letter.
  Parts parts(std::int64_t i) const;

  static Example join(const Parts& question, const Parts& answered);

  const io::TokenSet* set_;
  const Examples* others_;
  /// Per item and choice: index into the option sequences.
  std::vector<std::vector<std::int64_t>> listed_, open_;
  /// Tokens in the answers of the others: how often each, and how many.
  std::unordered_map<std::int32_t, double> counts_;
  double counted_ = 0;
};

}  // namespace mrp::shard
