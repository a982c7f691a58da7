#include "io/file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include "dist/error.hpp"
#include "io/hash.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

namespace fs = std::filesystem;
using dist::InputError;
using dist::ResourceError;
using test::message_of;
using testing::HasSubstr;

using FileTest = test::LocalFolder;
using HashTest = test::LocalFolder;

std::string read_string(const File& file, std::uint64_t offset, std::size_t count) {
  std::string text(count, '\0');
  file.read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST_F(FileTest, ReadsAnyPartAndRefusesWhatLiesBeyond) {
  const File file(put("a", "0123456789"));
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(read_string(file, 0, 10), "0123456789");
  EXPECT_EQ(read_string(file, 3, 4), "3456");
  EXPECT_EQ(read_string(file, 10, 0), "");
  EXPECT_THROW(read_string(file, 8, 3), InputError);
  EXPECT_THROW(read_string(file, 11, 0), InputError);
  EXPECT_THAT(message_of<InputError>([&] { read_string(file, ~std::uint64_t{0}, 2); }),
              HasSubstr("are asked for"));
}

TEST_F(FileTest, RefusesWhatIsNoRegularFile) {
  const auto pipe = folder() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& path : {folder(), pipe, fs::path("/dev/zero")}) {
    EXPECT_THAT(message_of<InputError>([&] { File{path}; }), HasSubstr("not a regular file"));
  }
  EXPECT_THAT(message_of<InputError>([&] { File{folder() / "none"}; }), HasSubstr("none"));
}

TEST_F(FileTest, NoticesAFileThatShrinksOrChanges) {
  const auto path = put("a", std::string(100, 'x'));
  const File file(path);
  EXPECT_NO_THROW(file.expect_unchanged());
  fs::resize_file(path, 50);
  EXPECT_THAT(message_of<InputError>([&] { read_string(file, 0, 100); }), HasSubstr("byte 50"));
  EXPECT_THROW(file.expect_unchanged(), InputError);

  const auto other = put("b", "same size");
  const File touched(other);
  fs::last_write_time(other, fs::last_write_time(other) + std::chrono::seconds(5));
  EXPECT_THROW(touched.expect_unchanged(), InputError);
}

TEST_F(FileTest, MovesItsDescriptor) {
  File a(put("a", "aaa"));
  File b(put("b", "bbbb"));
  a = std::move(b);
  EXPECT_EQ(read_string(a, 0, 4), "bbbb");
  const File c(std::move(a));
  EXPECT_EQ(read_string(c, 0, 4), "bbbb");
  EXPECT_EQ(c.path(), folder() / "b");
}

TEST_F(FileTest, ThreadsReadOneFile) {
  std::string content(100'000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 / 3);
  const File file(put("a", content));
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t i = t; i + 500 < content.size(); i += 531) {
          wrong[t] += read_string(file, i, 500) != content.substr(i, 500);
        }
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(FileTest, WrittenTextAppearsCompleteUnderItsName) {
  const auto path = folder() / "text";
  write_text(path, "one");
  EXPECT_EQ(read_text(path), "one");
  write_text(path, "");
  EXPECT_EQ(read_text(path), "");
  EXPECT_FALSE(fs::exists(partial_path(path)));
}

TEST_F(FileTest, AnUnpublishedFileLeavesTheOldOne) {
  const auto path = put("a", "old");
  {
    OutputFile file(path);
    file.write(std::as_bytes(std::span(std::string_view("new content"))));
    EXPECT_EQ(file.size(), 11u);
    EXPECT_TRUE(fs::exists(partial_path(path)));
    EXPECT_EQ(get(path), "old");
  }
  EXPECT_EQ(get(path), "old");
  EXPECT_FALSE(fs::exists(partial_path(path)));
}

TEST_F(FileTest, PublishNeedsThePartialFile) {
  EXPECT_THROW(publish(folder() / "never written"), InputError);
  put("a.partial", "text");
  publish(folder() / "a");
  EXPECT_EQ(get(folder() / "a"), "text");
}

TEST_F(FileTest, DoesNotWriteThroughAPlantedLink) {
  const auto victim = put("victim", "precious");
  fs::create_symlink(victim, folder() / "a.partial");
  EXPECT_THROW(write_text(folder() / "a", "text"), InputError);
  EXPECT_EQ(get(victim), "precious");
}

TEST_F(FileTest, AWriteThatTheSystemCutsIsAResourceErrorAndLeavesNothing) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto message =
      message_of<ResourceError>([&] { write_text(folder() / "big", std::string(10'000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("big"));
  EXPECT_TRUE(fs::is_empty(folder()));
}

TEST_F(FileTest, AMissingOutputDirectoryIsAnInputError) {
  EXPECT_THAT(message_of<InputError>([&] { write_text(folder() / "no" / "a", "x"); }),
              HasSubstr("no/a"));
}

TEST_F(FileTest, TextHasAnUpperBound) {
  const auto path = put("a", "0123456789");
  EXPECT_EQ(read_text(path, 10), "0123456789");
  EXPECT_THROW(read_text(path, 9), InputError);
}

TEST_F(FileTest, FreeSpaceIsFoundForPlacesThatDoNotExistYet) {
  const auto here = free_space(folder());
  EXPECT_GT(here, 0u);
  EXPECT_GT(free_space(folder() / "not" / "yet"), here / 2);
  EXPECT_NO_THROW(require_space(folder(), 1, "a test"));
  const auto message = message_of<ResourceError>(
      [&] { require_space(folder() / "not", ~std::uint64_t{0}, "a test"); });
  EXPECT_THAT(message, HasSubstr("a test needs"));
  EXPECT_THAT(message, HasSubstr(folder().string()));
}

TEST_F(HashTest, MatchesPublishedVectors) {
  // Of the xxHash test program (XSUM_sanity check, seed 0) and of FIPS 180-4.
  EXPECT_EQ(xxh3_128(""), "99aa06d3014798d86001c324468d497f");
  Sha256 empty;
  EXPECT_EQ(empty.finish(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.update(std::as_bytes(std::span(std::string_view("a"))));
  abc.update(std::as_bytes(std::span(std::string_view("bc"))));
  EXPECT_EQ(abc.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_THROW(abc.finish(), dist::ContractError);
}

TEST_F(HashTest, FileHashIsThatOfItsBytes) {
  std::string content(9'000'000, '\0');  // more than two read blocks
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 251);
  Sha256 whole;
  whole.update(std::as_bytes(std::span(content)));
  EXPECT_EQ(sha256_file(put("a", content)), whole.finish());
  Sha256 empty;
  EXPECT_EQ(sha256_file(put("empty", "")), empty.finish());
}

TEST_F(HashTest, FastHashDependsOnEveryByte) {
  std::string content(3000, 'a');
  const auto before = xxh3_128(content);
  EXPECT_EQ(before.size(), 32u);
  for (std::size_t i = 0; i < content.size(); i += 37) {
    content[i] = 'b';
    EXPECT_NE(xxh3_128(content), before);
    content[i] = 'a';
  }
}

}  // namespace
}  // namespace mrp::io
