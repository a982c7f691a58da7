// tokens.h5: what `prepare` makes of the JSONL files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/partition.hpp"

namespace mrp::io {

/// Sequences back to back.
struct Sequences {
  std::vector<std::int32_t> token_ids;    ///< [T]
  std::vector<std::int64_t> offsets{0};   ///< [n + 1]
  std::vector<std::uint8_t> target_mask;  ///< [T], 1 where the next token is supervised

  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t length(std::int64_t i) const {
    return offsets[std::size_t(i) + 1] - offsets[std::size_t(i)];
  }
  std::span<const std::int32_t> tokens(std::int64_t i) const;
  std::span<const std::uint8_t> mask(std::int64_t i) const;
  /// One more sequence. @pre The mask is as long as the tokens.
  void append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask);
  bool operator==(const Sequences&) const = default;
};

/// How an option sequence was formed from its item.
enum class OptionForm : std::uint8_t { list = 0, open = 1, paraphrase = 2 };

/// One option of one item: a sequence in which only the option's text is supervised.
struct Options {
  Sequences sequences;               ///< m sequences
  std::vector<std::int64_t> item;    ///< [m]
  std::vector<std::int32_t> choice;  ///< [m], −1 for a paraphrase
  std::vector<OptionForm> form;      ///< [m]
  bool operator==(const Options&) const = default;
};

/// How a set came about that a model has written.
struct Sampling {
  std::int64_t drawn = 0;
  std::int64_t dropped = 0;  ///< of those
  std::string rule;          ///< by which they were dropped
  bool operator==(const Sampling&) const = default;
};

struct TokenSet {
  std::string name;
  std::string source;                      ///< file name it was made from
  Sequences items;                         ///< n sequences
  std::vector<std::string> ids;            ///< [n]
  std::vector<std::int64_t> zlib_bytes;    ///< [n], of the text under zlib; empty: not all known
  std::vector<std::int32_t> answer_index;  ///< [n], −1 without choices
  std::vector<std::int64_t>
      letter_position;  ///< [n], position that predicts the letter, −1 if none
  std::vector<std::int32_t> letter_token_ids;   ///< valid letters of all items, back to back
  std::vector<std::int64_t> letter_offsets{0};  ///< [n + 1]
  Options options;
  std::int64_t dropped_too_long = 0;
  std::optional<Sampling> sampling;

  /// Whether item i asks for a letter, and which are valid.
  bool asks_for_letter(std::int64_t i) const;
  std::span<const std::int32_t> letters(std::int64_t i) const;
  /// These items of `other`, in their order, with their options.
  void append(const TokenSet& other, std::span<const std::int64_t> chosen);
  bool operator==(const TokenSet&) const = default;
};

struct TokenDataset {
  std::string fingerprint;
  std::string tokenizer_sha256;
  std::int64_t vocab_size = 0;
  std::map<std::string, TokenSet> sets;
  bool operator==(const TokenDataset&) const = default;

  /// Reads and checks everything (offsets monotone, masks of the right length, ids within the
  /// vocabulary, indices in range). Not collective. @throws InputError.
  static TokenDataset read(const std::filesystem::path& path);
  /// Writes what `read` reads, through a temporary file. Not collective. @pre Everything is as read
  /// checks it. @throws ResourceError.
  void write(const std::filesystem::path& path) const;
  /// @throws InputError listing the sets that exist.
  const TokenSet& set(const std::string& name) const;
};

/// The fingerprint attribute of any of our HDF5 files, or "" if there is no such file or attribute.
std::string read_fingerprint(const std::filesystem::path& path);

/// The format attribute of an HDF5 file: "mrp.tokens", "mrp.states", ... @throws InputError: no
/// HDF5 file or without the attribute.
std::string read_format(const std::filesystem::path& path);

}  // namespace mrp::io
