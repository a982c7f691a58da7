#include "io/token_dataset.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "hdf5_support.hpp"
#include "io/hdf5_array.hpp"

namespace mrp {
namespace {

using dist::InputError;
using io::TokenDataset;
using test::input_error;

/// The file that tests/io/h5py_peer.py writes, the way jobs/py/prepare.py does.
class TokenDatasetTest : public test::LocalFolder {
 protected:
  TokenDatasetTest() : path_(folder() / "tokens.h5") {
    if (whole_.empty()) {
      if (test::run_h5py("write-tokens", path_) != 0) ADD_FAILURE() << "h5py_peer.py failed";
      whole_ = get(path_);
    } else {
      put("tokens.h5", whole_);
    }
  }

  /// What is said about the file after `edit`.
  std::string error_after(const std::function<void(hid_t)>& edit) {
    put("tokens.h5", whole_);
    test::edit_hdf5(path_, edit);
    return input_error([&] { TokenDataset::read(path_); });
  }

  std::string error_after_poke(const std::string& dataset, hsize_t place, std::int64_t value) {
    return error_after([&](hid_t file) {
      test::poke(file, "forget/" + dataset, {place}, H5T_NATIVE_INT64, value);
    });
  }

  std::filesystem::path path_;
  static inline std::string whole_;  // one start of Python serves all tests
};

#define EXPECT_SAYS(message, part)                                                             \
  EXPECT_PRED2([](const std::string& m, const std::string& p) { return m.find(p) != m.npos; }, \
               message, part)

TEST_F(TokenDatasetTest, items_are_appended_with_letters_and_options) {
  const io::TokenSet set = TokenDataset::read(path_).set("forget");
  const std::int64_t last = set.items.count() - 1;
  ASSERT_GT(last, 0);
  io::TokenSet joined;
  joined.append(set, std::vector<std::int64_t>{last, 0});
  joined.append(set, std::vector<std::int64_t>{last});
  ASSERT_EQ(joined.items.count(), 3);
  std::int64_t expected = 0;
  const std::int64_t from[] = {last, 0, last};
  for (std::int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(joined.ids[std::size_t(i)], set.ids[std::size_t(from[i])]);
    EXPECT_TRUE(std::ranges::equal(joined.items.tokens(i), set.items.tokens(from[i])));
    EXPECT_TRUE(std::ranges::equal(joined.letters(i), set.letters(from[i])));
    expected += std::ranges::count(set.options.item, from[i]);
    EXPECT_EQ(std::ranges::count(joined.options.item, i),
              std::ranges::count(set.options.item, from[i]));
  }
  EXPECT_EQ(joined.options.sequences.count(), expected);
}

TEST_F(TokenDatasetTest, everything_is_read) {
  const auto dataset = TokenDataset::read(path_);
  EXPECT_EQ(dataset.fingerprint, "ab12");
  EXPECT_EQ(io::read_fingerprint(path_), "ab12");
  EXPECT_EQ(io::read_format(path_), "mrp.tokens");
  EXPECT_EQ(dataset.tokenizer_sha256, "cd34");
  EXPECT_EQ(dataset.vocab_size, 50);
  ASSERT_EQ(dataset.sets.size(), 2U);
  for (const auto& name : {"forget", "retain"}) {
    const auto& set = dataset.set(name);
    EXPECT_EQ(set.name, name);
    EXPECT_EQ(set.source, "forget.jsonl");
    EXPECT_EQ(set.dropped_too_long, 7);
    EXPECT_EQ(set.items.token_ids, (std::vector<std::int32_t>{1, 5, 6, 7, 1, 49}));
    EXPECT_EQ(set.items.offsets, (std::vector<std::int64_t>{0, 4, 6}));
    EXPECT_EQ(set.items.target_mask, (std::vector<std::uint8_t>{0, 1, 1, 0, 1, 0}));
    EXPECT_EQ(set.ids, (std::vector<std::string>{"forget:1", "ünï"}));
    EXPECT_EQ(set.zlib_bytes, (std::vector<std::int64_t>{12, 9}));
    EXPECT_EQ(set.answer_index, (std::vector<std::int32_t>{2, -1}));
    EXPECT_EQ(set.letter_position, (std::vector<std::int64_t>{1, -1}));
    EXPECT_EQ(set.letter_token_ids, (std::vector<std::int32_t>{6, 8, 9}));
    EXPECT_EQ(set.letter_offsets, (std::vector<std::int64_t>{0, 3, 3}));
    EXPECT_EQ(set.options.sequences.count(), 3);
    EXPECT_EQ(set.options.item, (std::vector<std::int64_t>{0, 0, 1}));
    EXPECT_EQ(set.options.choice, (std::vector<std::int32_t>{0, 2, -1}));
    EXPECT_EQ(set.options.form, (std::vector{io::OptionForm::list, io::OptionForm::open,
                                             io::OptionForm::paraphrase}));
  }
  const auto& items = dataset.set("forget").items;
  EXPECT_EQ(items.count(), 2);
  EXPECT_EQ(items.length(1), 2);
  EXPECT_EQ(items.tokens(1)[1], 49);
  EXPECT_EQ(items.mask(1)[0], 1);
  EXPECT_THROW(items.tokens(2), dist::ContractError);
  EXPECT_SAYS(input_error([&] { dataset.set("world"); }),
              "no token set \"world\"; the file has: forget, retain");
}

TEST_F(TokenDatasetTest, what_is_written_is_read) {
  TokenDataset dataset = TokenDataset::read(path_);
  const auto copy = folder() / "copy.h5";
  dataset.write(copy);
  EXPECT_TRUE(TokenDataset::read(copy) == dataset);
  EXPECT_FALSE(dataset.set("forget").sampling);

  // As samples are: nothing but sequences.
  io::TokenSet samples;
  samples.name = "samples";
  samples.items = {{1, 2, 3}, {0, 2, 3}, {1, 0, 0}};
  samples.ids = {"sample:0", "sample:12"};
  samples.answer_index = {-1, -1};
  samples.letter_position = {-1, -1};
  samples.letter_offsets = {0, 0, 0};
  samples.options.sequences.offsets = {0};
  samples.sampling = {3, 1, "a rule with ünï"};
  dataset.sets = {{"samples", samples}};
  dataset.write(copy);
  EXPECT_TRUE(TokenDataset::read(copy) == dataset);
  const std::string bytes = get(copy);
  dataset.write(copy);
  EXPECT_EQ(get(copy), bytes);
  test::edit_hdf5(copy, [](hid_t file) {
    const auto group = io::open_group(file, "samples");
    MRP_HDF5(H5Adelete(group.get(), "dropped"));
    io::write_attribute(group.get(), "dropped", std::int64_t{4});
  });
  EXPECT_SAYS(input_error([&] { TokenDataset::read(copy); }), "4 of 3 samples were dropped");
  EXPECT_THROW(dataset.write(folder() / "absent" / "copy.h5"), dist::ResourceError);
}

TEST_F(TokenDatasetTest, sequences_are_checked) {
  EXPECT_SAYS(error_after_poke("items/offsets", 0, 1),
              "tokens.h5:/forget/items: offsets do not begin with 0");
  EXPECT_SAYS(error_after_poke("items/offsets", 1, 7), "offsets do not increase at sequence 1");
  EXPECT_SAYS(error_after_poke("items/offsets", 1, 0), "offsets do not increase at sequence 0");
  EXPECT_SAYS(error_after_poke("items/offsets", 1, std::numeric_limits<std::int64_t>::min()),
              "increase");
  EXPECT_SAYS(error_after_poke("items/offsets", 2, 5), "offsets end at 5, there are 6 tokens");
  EXPECT_SAYS(error_after_poke("items/token_ids", 3, 50),
              "token 50 at position 3 is outside the vocabulary of 50");
  EXPECT_SAYS(error_after_poke("items/token_ids", 0, -1), "token -1");
  EXPECT_SAYS(error_after_poke("items/target_mask", 0, 2), "target_mask of sequence 0");
  EXPECT_SAYS(error_after_poke("items/target_mask", 3, 1), "beyond the end");
  EXPECT_SAYS(error_after([](hid_t file) {
                MRP_HDF5(H5Ldelete(file, "forget/items/target_mask", H5P_DEFAULT));
                const auto group = io::open_group(io::open_group(file, "forget").get(), "items");
                io::write_array<std::uint8_t>(group.get(), "target_mask",
                                              std::array<std::int64_t, 1>{5},
                                              std::vector<std::uint8_t>(5));
              }),
              "\"target_mask\" has 5 elements instead of 6");
}

TEST_F(TokenDatasetTest, letters_answers_and_options_are_checked) {
  EXPECT_SAYS(error_after_poke("letters/offsets", 1, 4), "letters: offsets");
  EXPECT_SAYS(error_after_poke("letters/token_ids", 0, 77), "token 77");
  EXPECT_SAYS(error_after_poke("answer_index", 0, 3), "item 0 has no choice 3");
  EXPECT_SAYS(error_after_poke("answer_index", 1, 0), "item 1 has no choice 0");
  EXPECT_SAYS(error_after_poke("answer_index", 1, -2), "answer_index -2");
  EXPECT_SAYS(error_after_poke("zlib_bytes", 1, 0), "item 1 has zlib_bytes 0");
  EXPECT_SAYS(error_after_poke("letter_position", 0, 4), "letter_position 4");
  EXPECT_SAYS(error_after_poke("letter_position", 0, -1), "letter_position -1");
  EXPECT_SAYS(error_after_poke("letter_position", 1, 0), "0 letters");
  EXPECT_SAYS(error_after_poke("options/item", 1, 2), "option 1 belongs to item 2 of 2");
  EXPECT_SAYS(error_after_poke("options/item", 1, -1), "option 1 belongs to item -1");
  EXPECT_SAYS(error_after_poke("options/form", 0, 3), "unknown form 3");
  EXPECT_SAYS(error_after_poke("options/choice", 2, 0), "option 2 has choice 0");
  EXPECT_SAYS(error_after_poke("options/choice", 0, -1), "option 0 has choice -1");
  // A right answer without letters is one of the options.
  put("tokens.h5", whole_);
  test::edit_hdf5(path_, [](hid_t file) {
    test::poke(file, "forget/options/form", {2}, H5T_NATIVE_INT64, std::int64_t{1});
    test::poke(file, "forget/options/choice", {2}, H5T_NATIVE_INT64, std::int64_t{0});
    test::poke(file, "forget/answer_index", {1}, H5T_NATIVE_INT64, std::int64_t{0});
  });
  EXPECT_EQ(TokenDataset::read(path_).set("forget").answer_index[1], 0);
}

TEST_F(TokenDatasetTest, missing_and_foreign_parts_are_named) {
  for (const std::string name :
       {"items", "items/offsets", "ids", "answer_index", "letter_position", "letters",
        "letters/token_ids", "options", "options/item", "options/form"}) {
    const auto message = error_after(
        [&](hid_t file) { MRP_HDF5(H5Ldelete(file, ("forget/" + name).c_str(), H5P_DEFAULT)); });
    EXPECT_SAYS(message, "\"" + name.substr(name.rfind('/') + 1) + "\" is missing");
  }
  for (const std::string name :
       {"format", "version", "fingerprint", "tokenizer_sha256", "vocab_size"}) {
    const auto message = error_after([&](hid_t file) { MRP_HDF5(H5Adelete(file, name.c_str())); });
    EXPECT_SAYS(message, "attribute \"" + name + "\" is missing");
  }
  const auto set_vocabulary = [](std::int64_t size) {
    return [size](hid_t file) {
      MRP_HDF5(H5Adelete(file, "vocab_size"));
      io::write_attribute(file, "vocab_size", size);
    };
  };
  EXPECT_SAYS(error_after(set_vocabulary(0)), "vocab_size is 0");
  EXPECT_SAYS(error_after(set_vocabulary(std::int64_t{1} << 31)), "vocab_size is 2147483648");
  EXPECT_SAYS(error_after([](hid_t file) {
                for (const auto* set : {"forget", "retain"})
                  MRP_HDF5(H5Ldelete(file, set, H5P_DEFAULT));
              }),
              "no sets");
  EXPECT_SAYS(error_after([](hid_t file) {
                MRP_HDF5(H5Ldelete(file, "retain", H5P_DEFAULT));
                MRP_HDF5(H5Lcreate_soft("/forget", file, "retain", H5P_DEFAULT, H5P_DEFAULT));
              }),
              "soft or external link");
  EXPECT_SAYS(error_after([](hid_t file) {
                MRP_HDF5(H5Ldelete(file, "retain", H5P_DEFAULT));
                MRP_HDF5(H5Lcreate_hard(file, "/", file, "retain", H5P_DEFAULT, H5P_DEFAULT));
              }),
              "is missing");
}

TEST_F(TokenDatasetTest, a_fingerprint_that_cannot_be_read_is_empty) {
  EXPECT_EQ(io::read_fingerprint(folder() / "absent.h5"), "");
  EXPECT_THROW(io::read_format(folder() / "absent.h5"), InputError);
  put("tokens.h5", "no HDF5");
  EXPECT_EQ(io::read_fingerprint(path_), "");
  put("tokens.h5", whole_.substr(0, whole_.size() / 2));
  EXPECT_EQ(io::read_fingerprint(path_), "");
  put("tokens.h5", whole_);
  test::edit_hdf5(path_, [](hid_t file) { MRP_HDF5(H5Adelete(file, "fingerprint")); });
  EXPECT_EQ(io::read_fingerprint(path_), "");
}

TEST_F(TokenDatasetTest, damaged_files_are_errors) {
  const test::Damage damage(path_);
  damage.truncate([&] { TokenDataset::read(path_); });
  damage.mutate([&] { TokenDataset::read(path_); });
}

}  // namespace
}  // namespace mrp
