#include "io/token_dataset.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "dist/error.hpp"
#include "io/hdf5_array.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

constexpr const char* format_name = "mrp.tokens";
constexpr std::int64_t format_version = 1;
constexpr const char* advice = "; run prepare again";

/// Throws an error about `group` unless `condition` holds; the text is only made when it does not.
template <class... Args>
void require(bool condition, hid_t group, fmt::format_string<Args...> text, Args&&... args) {
  if (condition) return;
  throw InputError(object_name(group) + ": " + fmt::format(text, std::forward<Args>(args)...) +
                   advice);
}

/// `offsets` cut [0, total) into parts of at least `shortest` elements.
void check_offsets(hid_t group, const std::vector<std::int64_t>& offsets, std::size_t total,
                   std::int64_t shortest) {
  require(!offsets.empty() && offsets.front() == 0, group, "offsets do not begin with 0");
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    // Compared without a difference: hostile values could overflow it.
    require(offsets[i] >= offsets[i - 1] && (shortest == 0 || offsets[i] > offsets[i - 1]), group,
            "offsets do not increase at sequence {}", i - 1);
  }
  require(std::cmp_equal(offsets.back(), total), group, "offsets end at {}, there are {} tokens",
          offsets.back(), total);
}

void check_tokens(hid_t group, const std::vector<std::int32_t>& tokens, std::int64_t vocab_size) {
  const auto bad = std::find_if(tokens.begin(), tokens.end(),
                                [&](std::int32_t id) { return id < 0 || id >= vocab_size; });
  if (bad == tokens.end()) return;
  require(false, group, "token {} at position {} is outside the vocabulary of {}", *bad,
          bad - tokens.begin(), vocab_size);
}

Sequences read_sequences(hid_t group, std::int64_t vocab_size) {
  Sequences sequences;
  sequences.token_ids = read_vector<std::int32_t>(group, "token_ids");
  sequences.offsets = read_vector<std::int64_t>(group, "offsets");
  const auto& tokens = sequences.token_ids;
  sequences.target_mask =
      read_vector<std::uint8_t>(group, "target_mask", static_cast<std::int64_t>(tokens.size()));
  check_offsets(group, sequences.offsets, tokens.size(), 1);
  check_tokens(group, tokens, vocab_size);
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    const auto mask = sequences.mask(i);
    require(std::all_of(mask.begin(), mask.end(), [](std::uint8_t bit) { return bit <= 1; }) &&
                mask.back() == 0,
            group, "target_mask of sequence {} is not 0 or 1, or supervises a token beyond the end",
            i);
  }
  return sequences;
}

Options read_options(hid_t group, std::int64_t items, std::int64_t vocab_size) {
  Options options;
  options.sequences = read_sequences(group, vocab_size);
  const std::int64_t count = options.sequences.count();
  options.item = read_vector<std::int64_t>(group, "item", count);
  options.choice = read_vector<std::int32_t>(group, "choice", count);
  const auto forms = read_vector<std::uint8_t>(group, "form", count);
  for (std::size_t i = 0; i < forms.size(); ++i) {
    require(options.item[i] >= 0 && options.item[i] < items, group,
            "option {} belongs to item {} of {}", i, options.item[i], items);
    require(forms[i] <= static_cast<std::uint8_t>(OptionForm::paraphrase), group,
            "option {} has the unknown form {}", i, forms[i]);
    options.form.push_back(static_cast<OptionForm>(forms[i]));
    const bool paraphrase = options.form.back() == OptionForm::paraphrase;
    require(paraphrase ? options.choice[i] == -1 : options.choice[i] >= 0, group,
            "option {} has choice {}", i, options.choice[i]);
  }
  return options;
}

/// A right answer must be among the letters or among the options of its item.
void check_answers(hid_t group, const TokenSet& set) {
  std::vector<bool> found(set.answer_index.size(), false);
  for (std::size_t i = 0; i < set.options.item.size(); ++i) {
    const auto item = static_cast<std::size_t>(set.options.item[i]);
    if (set.options.choice[i] == set.answer_index[item]) found[item] = true;
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto answer = set.answer_index[i];
    const auto letters = set.letter_offsets[i + 1] - set.letter_offsets[i];
    require(answer >= -1, group, "item {} has answer_index {}", i, answer);
    require(answer == -1 || (letters > 0 ? answer < letters : found[i]), group,
            "item {} has no choice {}, its answer_index", i, answer);
    const auto position = set.letter_position[i];
    const auto length = set.items.length(static_cast<std::int64_t>(i));
    require(letters > 0 ? position >= 0 && position < length : position == -1, group,
            "item {} has letter_position {} with {} tokens and {} letters", i, position, length,
            letters);
  }
}

TokenSet read_set(hid_t file, const std::string& name, std::int64_t vocab_size) {
  const auto group = open_group(file, name);
  TokenSet set;
  set.name = name;
  set.source = read_text_attribute(group.get(), "source");
  set.dropped_too_long = read_int_attribute(group.get(), "dropped_too_long");
  require(set.dropped_too_long >= 0, group.get(), "dropped_too_long is negative");
  if (has_attribute(group.get(), "drawn")) {
    set.sampling = {read_int_attribute(group.get(), "drawn"),
                    read_int_attribute(group.get(), "dropped"),
                    read_text_attribute(group.get(), "rule")};
    require(set.sampling->dropped >= 0 && set.sampling->dropped <= set.sampling->drawn, group.get(),
            "{} of {} samples were dropped", set.sampling->dropped, set.sampling->drawn);
  }
  set.items = read_sequences(open_group(group.get(), "items").get(), vocab_size);
  const std::int64_t count = set.items.count();
  require(count > 0, group.get(), "the set holds no items");
  set.ids = read_texts(group.get(), "ids");
  require(std::cmp_equal(set.ids.size(), count), group.get(), "{} ids for {} items", set.ids.size(),
          count);
  if (exists(group.get(), "zlib_bytes")) {
    set.zlib_bytes = read_vector<std::int64_t>(group.get(), "zlib_bytes", count);
  }
  for (std::size_t i = 0; i < set.zlib_bytes.size(); ++i) {
    require(set.zlib_bytes[i] > 0, group.get(), "item {} has zlib_bytes {}", i, set.zlib_bytes[i]);
  }
  set.answer_index = read_vector<std::int32_t>(group.get(), "answer_index", count);
  set.letter_position = read_vector<std::int64_t>(group.get(), "letter_position", count);
  const auto letters = open_group(group.get(), "letters");
  set.letter_token_ids = read_vector<std::int32_t>(letters.get(), "token_ids");
  set.letter_offsets = read_vector<std::int64_t>(letters.get(), "offsets", count + 1);
  check_offsets(letters.get(), set.letter_offsets, set.letter_token_ids.size(), 0);
  check_tokens(letters.get(), set.letter_token_ids, vocab_size);
  set.options = read_options(open_group(group.get(), "options").get(), count, vocab_size);
  check_answers(group.get(), set);
  return set;
}

template <class T>
void write_vector(hid_t group, const std::string& name, const std::vector<T>& values) {
  write_array<T>(group, name, std::array{static_cast<std::int64_t>(values.size())}, values);
}

void write_sequences(hid_t group, const Sequences& sequences) {
  write_vector(group, "token_ids", sequences.token_ids);
  write_vector(group, "offsets", sequences.offsets);
  write_vector(group, "target_mask", sequences.target_mask);
}

void write_options(hid_t group, const Options& options) {
  write_sequences(group, options.sequences);
  write_vector(group, "item", options.item);
  write_vector(group, "choice", options.choice);
  std::vector<std::uint8_t> forms;
  for (const OptionForm form : options.form) forms.push_back(static_cast<std::uint8_t>(form));
  write_vector(group, "form", forms);
}

void write_set(hid_t file, const TokenSet& set) {
  const auto group = create_group(file, set.name);
  write_attribute(group.get(), "source", set.source);
  write_attribute(group.get(), "dropped_too_long", set.dropped_too_long);
  if (set.sampling) {
    write_attribute(group.get(), "drawn", set.sampling->drawn);
    write_attribute(group.get(), "dropped", set.sampling->dropped);
    write_attribute(group.get(), "rule", set.sampling->rule);
  }
  write_sequences(create_group(group.get(), "items").get(), set.items);
  write_texts(group.get(), "ids", set.ids);
  if (!set.zlib_bytes.empty()) write_vector(group.get(), "zlib_bytes", set.zlib_bytes);
  write_vector(group.get(), "answer_index", set.answer_index);
  write_vector(group.get(), "letter_position", set.letter_position);
  const auto letters = create_group(group.get(), "letters");
  write_vector(letters.get(), "token_ids", set.letter_token_ids);
  write_vector(letters.get(), "offsets", set.letter_offsets);
  write_options(create_group(group.get(), "options").get(), set.options);
}

template <class T>
std::span<const T> part(const std::vector<T>& values, const Sequences& sequences, std::int64_t i) {
  MRP_EXPECT(i >= 0 && i < sequences.count());
  return std::span(values).subspan(static_cast<std::size_t>(sequences.offsets[std::size_t(i)]),
                                   static_cast<std::size_t>(sequences.length(i)));
}

}  // namespace

std::span<const std::int32_t> Sequences::tokens(std::int64_t i) const {
  return part(token_ids, *this, i);
}

std::span<const std::uint8_t> Sequences::mask(std::int64_t i) const {
  return part(target_mask, *this, i);
}

void Sequences::append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask) {
  MRP_EXPECT(tokens.size() == mask.size());
  token_ids.insert(token_ids.end(), tokens.begin(), tokens.end());
  target_mask.insert(target_mask.end(), mask.begin(), mask.end());
  offsets.push_back(std::ssize(token_ids));
}

bool TokenSet::asks_for_letter(std::int64_t i) const {
  const auto item = static_cast<std::size_t>(i);
  return letter_position[item] >= 0 && answer_index[item] >= 0;
}

std::span<const std::int32_t> TokenSet::letters(std::int64_t i) const {
  const auto begin = static_cast<std::size_t>(letter_offsets[std::size_t(i)]);
  const auto end = static_cast<std::size_t>(letter_offsets[std::size_t(i) + 1]);
  return std::span(letter_token_ids).subspan(begin, end - begin);
}

void TokenSet::append(const TokenSet& other, std::span<const std::int64_t> chosen) {
  zlib_bytes.clear();
  std::map<std::int64_t, std::int64_t> place;  // of the items of `other` in this set
  for (const std::int64_t i : chosen) {
    const auto at = static_cast<std::size_t>(i);
    place[i] = std::ssize(ids);
    items.append(other.items.tokens(i), other.items.mask(i));
    ids.push_back(other.ids[at]);
    answer_index.push_back(other.answer_index[at]);
    letter_position.push_back(other.letter_position[at]);
    std::ranges::copy(other.letters(i), std::back_inserter(letter_token_ids));
    letter_offsets.push_back(std::ssize(letter_token_ids));
  }
  for (std::size_t o = 0; o < other.options.item.size(); ++o) {
    const auto found = place.find(other.options.item[o]);
    if (found == place.end()) continue;
    const auto option = static_cast<std::int64_t>(o);
    options.sequences.append(other.options.sequences.tokens(option),
                             other.options.sequences.mask(option));
    options.item.push_back(found->second);
    options.choice.push_back(other.options.choice[o]);
    options.form.push_back(other.options.form[o]);
  }
}

TokenDataset TokenDataset::read(const std::filesystem::path& path) {
  const auto file = open_hdf5(path);
  return as_input(path, [&] {
    check_format(file.get(), format_name, format_version);
    TokenDataset dataset;
    dataset.fingerprint = read_text_attribute(file.get(), "fingerprint");
    dataset.tokenizer_sha256 = read_text_attribute(file.get(), "tokenizer_sha256");
    dataset.vocab_size = read_int_attribute(file.get(), "vocab_size");
    require(dataset.vocab_size > 0 && std::in_range<std::int32_t>(dataset.vocab_size), file.get(),
            "vocab_size is {}", dataset.vocab_size);
    for (const auto& name : children(file.get())) {
      dataset.sets.emplace(name, read_set(file.get(), name, dataset.vocab_size));
    }
    require(!dataset.sets.empty(), file.get(), "no sets");
    return dataset;
  });
}

void TokenDataset::write(const std::filesystem::path& path) const {
  write_hdf5(path, format_name, format_version, fingerprint, [&](hid_t file) {
    write_attribute(file, "tokenizer_sha256", tokenizer_sha256);
    write_attribute(file, "vocab_size", vocab_size);
    for (const auto& [name, set] : sets) write_set(file, set);
  });
}

const TokenSet& TokenDataset::set(const std::string& name) const {
  const auto found = sets.find(name);
  if (found != sets.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, unused] : sets) names.push_back(known);
  throw InputError(
      fmt::format("no token set \"{}\"; the file has: {}", name, fmt::join(names, ", ")));
}

std::string read_fingerprint(const std::filesystem::path& path) {
  try {
    const auto file = open_hdf5(path);
    return read_text_attribute(file.get(), "fingerprint");
  } catch (const dist::Error&) {
    // Whatever is wrong with the file, it is not what some stage made: the stage runs again.
    return {};
  }
}

std::string read_format(const std::filesystem::path& path) {
  const auto file = open_hdf5(path);
  return as_input(path, [&] { return read_text_attribute(file.get(), "format"); });
}

}  // namespace mrp::io
