#include "io/checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

namespace fs = std::filesystem;
using dist::InputError;
using dist::Range;
using test::message_of;
using testing::HasSubstr;

class CheckpointTest : public test::LocalFolder {
 protected:
  /// A shard that holds one-element tensors of these names.
  void shard(const std::string& file, const std::vector<std::string>& names) const {
    const std::vector<std::byte> data(4, std::byte{1});
    std::vector<TensorData> tensors;
    for (const auto& name : names) tensors.push_back({name, DType::f32, {1}, data});
    write_safetensors(folder() / file, tensors);
  }

  void index(const std::string& weight_map,
             const std::string& metadata = R"({"total_size":8})") const {
    put(Checkpoint::index_name,
        R"({"metadata":)" + metadata + R"(,"weight_map":)" + weight_map + "}");
  }

  /// Two good shards "1" and "2" with tensors a and b.
  void two_shards() const {
    shard("1.safetensors", {"a"});
    shard("2.safetensors", {"b"});
    index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  }

  std::string refusal() const {
    return message_of<InputError>([&] { Checkpoint{folder()}; });
  }
};

TEST_F(CheckpointTest, OpensASingleFile) {
  shard("model.safetensors", {"a", "b"});
  const Checkpoint checkpoint(folder());
  EXPECT_FALSE(checkpoint.has_index());
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(checkpoint.info("b").bytes(), 4u);
  EXPECT_TRUE(checkpoint.contains("a"));
  EXPECT_FALSE(checkpoint.contains("c"));
  const auto message = message_of<InputError>([&] { checkpoint.info("c"); });
  EXPECT_EQ(message, "no tensor c in " + folder().string());
}

TEST_F(CheckpointTest, OpensShardsAndKeepsTheIndexText) {
  two_shards();
  index(R"({"b":"2.safetensors","a":"1.safetensors"})",
        R"({"total_size":8,"mergekit_version":"0.1","nested":{"x":[1]}})");
  const Checkpoint checkpoint(folder());
  EXPECT_TRUE(checkpoint.has_index());
  ASSERT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.files()[0].path(), folder() / "1.safetensors");
  EXPECT_EQ(checkpoint.file_of("b").path(), folder() / "2.safetensors");
  EXPECT_EQ(checkpoint.index_text(), get(folder() / Checkpoint::index_name));
  EXPECT_TRUE(checkpoint.stale_files().empty());
}

TEST_F(CheckpointTest, AnIndexMayNameTheSingleFile) {
  shard("model.safetensors", {"a"});
  index(R"({"a":"model.safetensors"})");
  EXPECT_TRUE(Checkpoint(folder()).has_index());
}

TEST_F(CheckpointTest, ShardNamesCannotLeaveTheDirectory) {
  two_shards();
  fs::create_directory(folder() / "sub");
  shard("sub/3.safetensors", {"b"});
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"../2.safetensors", "leaves the directory by .."},
      {"sub/../2.safetensors", "leaves the directory by .."},
      {"/tmp/2.safetensors", "absolute"},
      {"//2.safetensors", "absolute"},
      {"..\\\\2.safetensors", "backslash"},
      {"2.safetensors\\u0000.safetensors", "NUL"},
      {"2\\n.safetensors", "control characters"},
      {"sub/3.safetensors", "sub-directory"},
      {"./2.safetensors", "sub-directory"},
      {"2.bin", "does not end in .safetensors"},
      {"2.safetensors.bin", "does not end in .safetensors"},
      {".safetensors", "does not end in .safetensors"},
      {"", "does not end in .safetensors"},
      {"..", "leaves the directory by .."},
  };
  for (const auto& [name, rule] : cases) {
    index(R"({"a":"1.safetensors","b":")" + name + R"("})");
    EXPECT_THAT(refusal(), HasSubstr(rule)) << name;
    EXPECT_THAT(refusal(), HasSubstr("tensor \"b\"")) << name;
  }
}

TEST_F(CheckpointTest, LinksCannotLeaveTheDirectory) {
  const auto outside = folder() / "outside.safetensors";
  const auto inside = folder() / "checkpoint";
  fs::create_directory(inside);
  shard("outside.safetensors", {"a"});
  fs::create_symlink(outside, inside / "model.safetensors");
  EXPECT_THAT(message_of<InputError>([&] { Checkpoint{inside}; }),
              HasSubstr("leaves the directory"));

  put("checkpoint/model.safetensors.index.json", R"({"weight_map":{"a":"1.safetensors"}})");
  fs::rename(inside / "model.safetensors", inside / "1.safetensors");
  EXPECT_THAT(message_of<InputError>([&] { Checkpoint{inside}; }),
              HasSubstr("leaves the directory"));

  // To a file beside it is no harm, nor is a link to the whole directory.
  fs::rename(outside, inside / "2.safetensors");
  fs::remove(inside / "1.safetensors");
  fs::create_symlink("2.safetensors", inside / "1.safetensors");
  EXPECT_NO_THROW(Checkpoint{inside});
  fs::create_directory_symlink(inside, folder() / "alias");
  EXPECT_NO_THROW(Checkpoint{folder() / "alias"});
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  two_shards();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"})",
       "\"c\" is mapped to 2.safetensors, but is not there"},
      {R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"})",
       "\"b\" is mapped to 1.safetensors, but is in 2.safetensors"},
      {R"({"a":"1.safetensors","b":"3.safetensors"})", "3.safetensors"},
      {R"({"a":"1.safetensors","b":"2.safetensors","a":"2.safetensors"})", "stands twice"},
      {R"({"a":"1.safetensors","b":2})", "weight_map.b is 2; allowed: a string"},
      {R"({"a":"1.safetensors","b":null})", "weight_map.b is missing"},
      {R"({})", "weight_map is empty"},
      {R"([])", "weight_map is array"},
      {R"(null)", "weight_map is missing"},
  };
  for (const auto& [map, rule] : cases) {
    index(map);
    EXPECT_THAT(refusal(), HasSubstr(rule)) << map;
  }
  shard("2.safetensors", {"b", "d"});
  index(R"({"a":"1.safetensors","b":"2.safetensors"})");
  EXPECT_THAT(refusal(), HasSubstr("\"d\" of 2.safetensors is not mapped"));
  shard("2.safetensors", {"a", "b"});
  EXPECT_THAT(refusal(), HasSubstr("tensor \"a\" is both in"));
}

TEST_F(CheckpointTest, BrokenIndexFilesAreNamed) {
  two_shards();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not JSON"},
      {"[]", "the content is array"},
      {R"({"metadata":{}})", "weight_map is missing"},
      {R"({"metadata":[],"weight_map":{"a":"1.safetensors"}})", "metadata is array"},
      {"{\"weight_map\":\"\xff\"}", "not UTF-8"},
      {std::string("{}\0", 3), "NUL byte"},
      {"\xef\xbb\xbf{}", "byte-order mark"},
      {std::string(100'000, '['), "nested deeper"},
      {R"({"weight_map":{"a":"1.safetensors"},"big":1e999})", "too large"},
  };
  for (const auto& [text, rule] : cases) {
    put(Checkpoint::index_name, text);
    const auto message = refusal();
    EXPECT_THAT(message, HasSubstr(rule)) << text.substr(0, 80);
    EXPECT_THAT(message, HasSubstr(Checkpoint::index_name));
  }
}

TEST_F(CheckpointTest, NamesThatDifferOnlyByCaseAreRefused) {
  shard("s.safetensors", {"a"});
  shard("S.safetensors", {"b"});
  index(R"({"a":"s.safetensors","b":"S.safetensors"})");
  EXPECT_THAT(refusal(),
              HasSubstr("file names \"S.safetensors\" and \"s.safetensors\" differ only"));
  fs::remove(folder() / Checkpoint::index_name);
  shard("model.safetensors", {"w.a", "W.a"});
  EXPECT_THAT(refusal(), HasSubstr("tensor names \"W.a\" and \"w.a\" differ only"));
}

TEST_F(CheckpointTest, StaleShardsAreReportedAndLeftAlone) {
  two_shards();
  shard("old-00001.safetensors", {"a"});
  put("broken.safetensors", "no container at all");
  const Checkpoint checkpoint(folder());
  EXPECT_EQ(checkpoint.stale_files(),
            (std::vector<std::string>{"broken.safetensors", "old-00001.safetensors"}));
  EXPECT_EQ(checkpoint.names().size(), 2u);
  shard("model.safetensors", {"a"});
  EXPECT_THAT(refusal(), HasSubstr("holds model.safetensors beside an index"));
}

TEST_F(CheckpointTest, WhatIsNoCheckpointIsSaid) {
  EXPECT_THAT(refusal(), HasSubstr("holds no model.safetensors"));
  put("pytorch_model.bin", "x");
  EXPECT_THAT(refusal(), HasSubstr("convert"));
  shard("model-00001-of-00002.safetensors", {"a"});
  EXPECT_THAT(refusal(), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  EXPECT_THAT(message_of<InputError>([&] { Checkpoint{folder() / "none"}; }),
              HasSubstr("not a checkpoint directory"));
  shard("model.safetensors", {});
  EXPECT_THAT(refusal(), HasSubstr("holds no tensors"));
}

TEST_F(CheckpointTest, SideFilesAreWhatBelongsToItAndIsNoWeight) {
  two_shards();
  const std::vector<std::string> kept = {"config.json",    "generation_config.json",
                                         "merges.txt",     "special_tokens_map.json",
                                         "tokenizer.json", "tokenizer.model"};
  for (const auto& name : kept) put(name, "{}");
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "a.pt", "a.pth", "a.ckpt", "tf.h5",
        "flax.msgpack", "a.onnx", "a.gguf", ".gitattributes", "old.safetensors", "b.partial"}) {
    put(name, "x");
  }
  fs::create_directory(folder() / "original");
  ASSERT_EQ(mkfifo((folder() / "pipe").c_str(), 0600), 0);
  const Checkpoint checkpoint(folder());
  std::vector<std::string> found;
  for (const auto& path : checkpoint.side_files()) {
    EXPECT_EQ(path.parent_path(), folder());
    found.push_back(path.filename());
  }
  EXPECT_EQ(found, kept);

  fs::create_symlink("config.json", folder() / "linked.json");
  EXPECT_EQ(checkpoint.side_files().size(), kept.size() + 1);
  fs::create_symlink("/etc/passwd", folder() / "vocab.txt");
  EXPECT_THAT(message_of<InputError>([&] { checkpoint.side_files(); }),
              HasSubstr("vocab.txt is a link that leaves the directory"));
}

TEST_F(CheckpointTest, TheFingerprintFollowsTheWeights) {
  two_shards();
  put("config.json", "{}");
  const auto before = Checkpoint(folder()).fingerprint();
  EXPECT_EQ(before.size(), 32u);
  EXPECT_EQ(Checkpoint(folder()).fingerprint(), before);
  std::vector<std::string> seen = {before};
  const auto expect_new = [&](const char* what) {
    const auto now = Checkpoint(folder()).fingerprint();
    EXPECT_EQ(std::count(seen.begin(), seen.end(), now), 0) << what;
    seen.push_back(now);
  };
  put("config.json", "{ }");
  expect_new("config");
  index(R"({"a":"1.safetensors","b":"2.safetensors"})", R"({"total_size":9})");
  expect_new("index");
  const auto shard_path = folder() / "1.safetensors";
  fs::last_write_time(shard_path, fs::last_write_time(shard_path) + std::chrono::nanoseconds(1000));
  expect_new("time of a shard");
  fs::rename(shard_path, folder() / "3.safetensors");
  index(R"({"a":"3.safetensors","b":"2.safetensors"})", R"({"total_size":9})");
  expect_new("name of a shard");
  fs::remove(folder() / "config.json");
  expect_new("no config");
}

struct Matrix {
  DType dtype;
  std::int64_t rows, columns;
};

/// Every block must be what cutting the whole matrix gives; the last byte of the file belongs to
/// the matrix.
void check_blocks(const fs::path& folder, const Matrix& matrix, int blocks,
                  std::mt19937_64& random) {
  const auto bytes = static_cast<std::size_t>(dtype_bits(matrix.dtype) / 8);
  const auto rows = static_cast<std::size_t>(matrix.rows);
  const auto columns = static_cast<std::size_t>(matrix.columns);
  std::vector<std::byte> data(rows * columns * bytes);
  for (auto& value : data) value = static_cast<std::byte>(random());
  write_safetensors(folder / "model.safetensors",
                    {{"w", matrix.dtype, {matrix.rows, matrix.columns}, data}});
  const Checkpoint checkpoint(folder);
  EXPECT_EQ(checkpoint.read("w"), data);
  const auto range = [&](std::int64_t size) {
    auto a = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size + 1));
    auto b = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size + 1));
    return Range{std::min(a, b), std::max(a, b)};
  };
  for (int i = 0; i < blocks; ++i) {
    const auto r = i == 0 ? Range{0, matrix.rows} : range(matrix.rows);
    const auto c = i == 1 ? Range{0, matrix.columns} : range(matrix.columns);
    std::vector<std::byte> expected;
    for (auto row = r.begin; row < r.end; ++row) {
      const auto* begin =
          data.data() + static_cast<std::size_t>(row * matrix.columns + c.begin) * bytes;
      expected.insert(expected.end(), begin, begin + static_cast<std::size_t>(c.size()) * bytes);
    }
    EXPECT_EQ(checkpoint.read_block("w", r, c), expected)
        << r.begin << ".." << r.end << " " << c.begin << ".." << c.end;
  }
}

TEST_F(CheckpointTest, BlocksAreCutFromTheMatrix) {
  std::mt19937_64 random(5);
  check_blocks(folder(), {DType::bf16, 17, 33}, 60, random);
  check_blocks(folder(), {DType::u8, 5, 1}, 20, random);
  check_blocks(folder(), {DType::f64, 1, 40}, 20, random);
  check_blocks(folder(), {DType::f32, 700, 1000}, 12, random);  // more rows than one buffer holds
  check_blocks(folder(), {DType::f32, 9, 20'000}, 30,
               random);  // rows so long that gaps are skipped
}

TEST_F(CheckpointTest, BlocksMustLieInAMatrix) {
  const std::vector<std::byte> data(24);
  write_safetensors(folder() / "model.safetensors", {{"w", DType::f32, {2, 3}, data},
                                                     {"v", DType::f32, {6}, data},
                                                     {"q", DType::f4, {6, 8}, data}});
  const Checkpoint checkpoint(folder());
  EXPECT_EQ(checkpoint.read_block("w", {2, 2}, {0, 3}).size(), 0u);
  EXPECT_EQ(checkpoint.read_block("w", {0, 2}, {3, 3}).size(), 0u);
  const std::vector<std::pair<Range, Range>> outside = {
      {{0, 3}, {0, 3}}, {{0, 2}, {0, 4}}, {{-1, 2}, {0, 3}}, {{0, 2}, {-1, 3}}, {{1, 0}, {0, 3}}};
  for (const auto& [rows, columns] : outside) {
    const auto message = message_of<InputError>([&] { checkpoint.read_block("w", rows, columns); });
    EXPECT_THAT(message, HasSubstr("tensor w"));
    EXPECT_THAT(message, HasSubstr("[2, 3]"));
  }
  EXPECT_THROW(checkpoint.read_block("v", {0, 1}, {0, 1}), InputError);
  EXPECT_THROW(checkpoint.read_block("q", {0, 1}, {0, 2}), InputError);
  EXPECT_THROW(checkpoint.read_block("none", {0, 1}, {0, 2}), InputError);
}

TEST_F(CheckpointTest, AFileThatChangesUnderTheReaderIsNoticed) {
  shard("model.safetensors", {"a"});
  const Checkpoint checkpoint(folder());
  EXPECT_EQ(checkpoint.read("a").size(), 4u);
  const auto path = folder() / "model.safetensors";
  fs::resize_file(path, fs::file_size(path) - 2);
  EXPECT_THROW(checkpoint.read("a"), InputError);
}

}  // namespace
}  // namespace mrp::io
