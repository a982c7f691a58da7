#include "io/direct_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

using Access = DirectFile::Access;
using dist::ResourceError;
using test::message_of;
using testing::HasSubstr;

using DirectFileTest = test::LocalFolder;

/// Different in neighbouring pages.
std::string text_of(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + (i + i / 4096) % 23);
  return text;
}

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Around the bounds of pages, and to the end of a file that does not fill its last page.
const std::vector<std::pair<std::size_t, std::size_t>> parts = {
    {0, 1},       {0, 4096},    {0, 30001},    {1, 4095},  {4095, 2},
    {4096, 8192}, {5000, 9000}, {8191, 12289}, {29999, 2}, {12288, 17713}};

TEST_F(DirectFileTest, ReadsAnyPart) {
  const std::string whole = text_of(30001);
  const DirectFile file(put("a", whole), Access::read);
  PageBuffer buffer;
  for (const auto& [offset, count] : parts) {
    EXPECT_EQ(text(file.read(offset, count, buffer)), whole.substr(offset, count)) << offset;
  }
  EXPECT_THAT(message_of<ResourceError>([&] { file.read(29999, 3, buffer); }),
              HasSubstr("ends at byte 30001"));
  EXPECT_THROW(file.read(40000, 1, buffer), ResourceError);
}

TEST_F(DirectFileTest, WritesAnyPartWhereverItLiesInMemory) {
  const std::string whole = text_of(30001);
  for (const bool in_its_page : {true, false}) {
    for (const auto& [offset, count] : parts) {
      const auto path = put("a", std::string(30001, '.'));
      const DirectFile file(path, Access::write);
      PageBuffer buffer;
      const auto memory = buffer.fit(offset + (in_its_page ? 0 : 1), count);
      std::copy_n(std::as_bytes(std::span(whole)).begin() + static_cast<std::ptrdiff_t>(offset),
                  count, memory.begin());
      file.write(offset, memory);
      file.sync();
      std::string expected(30001, '.');
      expected.replace(offset, count, whole, offset, count);
      EXPECT_EQ(read_text(path), expected) << offset;
    }
  }
}

TEST_F(DirectFileTest, AllocatesWithoutChangingWhatIsThere) {
  const auto path = put("a", "begin");
  DirectFile(path, Access::write).allocate(10000);
  EXPECT_EQ(read_text(path), "begin" + std::string(9995, '\0'));
}

TEST_F(DirectFileTest, FollowsNoLinkWhenWriting) {
  const auto link = folder() / "link";
  std::filesystem::create_symlink(put("a", "precious"), link);
  EXPECT_THROW(DirectFile(link, Access::write), ResourceError);
  EXPECT_NO_THROW(DirectFile(link, Access::read));
  EXPECT_THROW(DirectFile(folder() / "none", Access::read), ResourceError);
}

}  // namespace
}  // namespace mrp::io
