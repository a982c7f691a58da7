#include "io/read_ahead.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/write_behind.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

using dist::ResourceError;
using test::message_of;
using testing::HasSubstr;

using ReadAheadTest = test::LocalFolder;

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string letters(std::size_t bytes, char first) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i)
    text[i] = static_cast<char>(static_cast<std::size_t>(first) + i / 100 % 20);
  return text;
}

/// Parts of 3000 bytes of two files, the last one shorter.
std::vector<FilePart> parts_of(const std::vector<std::filesystem::path>& files,
                               std::uint64_t bytes) {
  std::vector<FilePart> parts;
  for (const auto& file : files) {
    for (std::uint64_t at = 0; at < bytes; at += 3000) {
      parts.push_back({file, at, std::min<std::uint64_t>(3000, bytes - at)});
    }
  }
  return parts;
}

TEST_F(ReadAheadTest, PartsComeInOrderAndStayForOneMore) {
  const std::string a = letters(20000, 'a'), b = letters(20000, 'A');
  const auto parts = parts_of({put("a", a), put("b", b)}, 20000);
  ReadAhead reads(parts);
  std::span<std::byte> before;
  std::string expected_before;
  for (const FilePart& part : parts) {
    const std::span<std::byte> now = reads.next();
    const std::string expected =
        (part.file.filename() == "a" ? a : b).substr(part.begin, part.bytes);
    EXPECT_EQ(text(now), expected);
    EXPECT_EQ(text(before), expected_before);
    before = now;
    expected_before = expected;
  }
}

TEST_F(ReadAheadTest, WhatIsReadCanBeWrittenWhileTheNextIsRead) {
  const std::string a = letters(20000, 'a'), b = letters(20000, 'A');
  const auto parts = parts_of({put("a", a), put("b", b)}, 20000);
  const std::map<std::string, std::filesystem::path> copies = {
      {"a", put("copy of a", std::string(20000, '.'))},
      {"b", put("copy of b", std::string(20000, '.'))}};
  ReadAhead reads(parts);
  WriteBehind writes;
  for (const FilePart& part : parts) {
    writes.write(copies.at(part.file.filename().string()), part.begin, reads.next());
  }
  writes.open(copies.at("a")).write(0, std::as_bytes(std::span("x", 1)));
  writes.finish();
  std::string expected = a;
  expected[0] = 'x';
  EXPECT_EQ(read_text(copies.at("a")), expected);
  EXPECT_EQ(read_text(copies.at("b")), b);
}

TEST_F(ReadAheadTest, FailuresAreThoseOfTheirPart) {
  const auto path = put("a", "twelve bytes");
  ReadAhead reads({{path, 0, 12}, {path, 12, 1}});
  EXPECT_EQ(text(reads.next()), "twelve bytes");
  EXPECT_THAT(message_of<ResourceError>([&] { reads.next(); }), HasSubstr("ends at byte 12"));
  WriteBehind writes;
  EXPECT_THAT(message_of<ResourceError>(
                  [&] { writes.write(folder() / "missing", 0, std::span<const std::byte>()); }),
              HasSubstr("cannot open"));
}

}  // namespace
}  // namespace mrp::io
