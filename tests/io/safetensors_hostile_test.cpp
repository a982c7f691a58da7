// Files that nobody should trust: every rule of the container, broken one at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_header.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

using dist::InputError;
using test::message_of;
using testing::HasSubstr;

using SafetensorsHostile = test::LocalFolder;

std::string prefixed(std::uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + rest;
}

/// A file as the format lays it out: length, header, data.
std::string container(const std::string& header, std::size_t data_bytes) {
  return prefixed(header.size(), header + std::string(data_bytes, 'd'));
}

/// One tensor "a", of which the test writes the fields.
std::string one(const std::string& fields, std::size_t data_bytes = 4) {
  return container(R"({"a":{)" + fields + "}}", data_bytes);
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"("dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets;
}

struct Case {
  std::string what;
  std::string bytes;
  std::string message;
};

void expect_refused(const std::filesystem::path& path, const Case& hostile) {
  const auto message = message_of<InputError>([&] { SafetensorsFile{path}; });
  EXPECT_THAT(message, HasSubstr(hostile.message)) << hostile.what;
  EXPECT_THAT(message, HasSubstr(path.string())) << hostile.what;
  EXPECT_EQ(message.find_first_of(std::string("\n\r\x1b\0", 4)), std::string::npos) << message;
}

const std::string good = tensor("U8", "[4]", "[0,4]");

std::vector<Case> framing() {
  return {
      {"empty file", "", "too few"},
      {"seven bytes", "1234567", "too few"},
      {"no header", prefixed(0, ""), "does not start with {"},
      {"header of 100,000,001 bytes", prefixed(100'000'001, "{}"), "at most 100000000"},
      {"header of 2^64 - 1 bytes", prefixed(~std::uint64_t{0}, "{}"), "at most 100000000"},
      {"header one byte beyond the end", prefixed(3, "{}"), "beyond the end of the file"},
      {"length in big-endian order", std::string("\0\0\0\0\0\0\0\2", 8) + "{}", "at most"},
      {"not UTF-8", container("{\"\xff\":1}", 0), "not UTF-8 at byte 2"},
      {"overlong UTF-8", container("{\"\xc0\xaf\":1}", 0), "not UTF-8 at byte 2"},
      {"UTF-8 surrogate", container("{\"\xed\xa0\x80\":1}", 0), "not UTF-8 at byte 2"},
      {"UTF-8 above U+10FFFF", container("{\"\xf4\x90\x80\x80\":1}", 0), "not UTF-8 at byte 2"},
      {"cut UTF-8", container("{\"\xe2\x82", 0), "not UTF-8 at byte 2"},
      {"not JSON", container("{\"a\"", 0), "not JSON"},
      {"text after the object", container("{} x", 0), "not JSON at byte 4"},
      {"two objects", container("{}{}", 0), "not JSON"},
      {"comment", container("{/**/}", 0), "not JSON"},
      {"trailing comma", container("{\"a\":{" + good + "},}", 4), "not JSON"},
      {"lone surrogate escape", container(R"({"\ud800":{}})", 0), "not JSON"},
      {"raw newline in a name", container("{\"a\nb\":{" + good + "}}", 4), "not JSON"},
      {"list", container("[]", 0), "does not start with {"},
      {"byte-order mark", container("\xef\xbb\xbf{}", 0), "does not start with {"},
      {"NUL padding", container(std::string("{}\0\0\0\0\0\0", 8), 0), "NUL byte at byte 2"},
      {"NUL inside", container(std::string("{\"a\0\":{}}", 9), 0), "NUL byte"},
  };
}

std::vector<Case> structure() {
  return {
      {"tensor twice", container("{\"a\":{" + good + "},\"a\":{" + good + "}}", 4),
       "the key \"a\" stands twice"},
      {"tensor twice, once escaped",
       container("{\"a\":{" + good + "},\"\\u0061\":{" + good + "}}", 4), "stands twice"},
      {"metadata twice", container(R"({"__metadata__":{},"__metadata__":{}})", 0), "stands twice"},
      {"metadata key twice", container(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "stands twice"},
      {"field twice", one(R"("dtype":"U8",)" + good), "the key \"dtype\" stands twice"},
      {"unknown field", one(good + R"(,"strides":[1])"), "unknown field \"strides\""},
      {"deep lists", one(R"("dtype":"U8","shape":)" + std::string(500'000, '[')),
       "shape holds a list"},
      {"deep objects", container(R"({"a":{"dtype":{"b":{}}}})", 0), "dtype is an object"},
      {"tensor is null", container(R"({"a":null})", 0), "\"a\" is null"},
      {"tensor is a list", container(R"({"a":[]})", 0), "\"a\" is a list"},
      {"tensor is text", container(R"({"a":"U8"})", 0), "\"a\" is a string"},
      {"tensor is a number", container(R"({"a":1})", 0), "\"a\" is an integer"},
      {"no dtype", one(R"("shape":[4],"data_offsets":[0,4])"), "dtype is missing"},
      {"no shape", one(R"("dtype":"U8","data_offsets":[0,4])"), "shape is missing"},
      {"no data_offsets", one(R"("dtype":"U8","shape":[4])"), "data_offsets is missing"},
      {"no fields", one(""), "dtype is missing"},
      {"metadata is null", container(R"({"__metadata__":null})", 0), "\"__metadata__\" is null"},
      {"metadata is a list", container(R"({"__metadata__":[]})", 0), "\"__metadata__\" is a list"},
      {"metadata holds a number", container(R"({"__metadata__":{"k":1}})", 0),
       "__metadata__ holds an integer under \"k\""},
      {"metadata holds null", container(R"({"__metadata__":{"k":null}})", 0), "holds null"},
      {"metadata holds an object", container(R"({"__metadata__":{"k":{}}})", 0), "holds an object"},
      {"newline in a name", container("{\"a\\nb\":{" + good + "}}", 4), "control characters"},
      {"escape in a name", container("{\"\\u001b[2J\":{" + good + "}}", 4), "control characters"},
      {"NUL in a name", container("{\"a\\u0000\":{" + good + "}}", 4), "control characters"},
      {"DEL in a name", container("{\"a\x7f\":{" + good + "}}", 4), "control characters"},
      {"C1 control in a name", container("{\"a\xc2\x9b\":{" + good + "}}", 4),
       "control characters"},
      {"long name", container("{\"" + std::string(1025, 'n') + "\":{" + good + "}}", 4),
       "longer than 1024 bytes"},
      {"long metadata key",
       container("{\"__metadata__\":{\"" + std::string(1025, 'n') + "\":\"\"}}", 0),
       "longer than 1024 bytes"},
  };
}

std::vector<Case> fields() {
  return {
      {"dtype unknown", one(tensor("F128", "[4]", "[0,4]")), "unknown dtype \"F128\""},
      {"dtype in lower case", one(tensor("u8", "[4]", "[0,4]")), "unknown dtype"},
      {"dtype is a number", one(R"("dtype":4,"shape":[4],"data_offsets":[0,4])"),
       "dtype is an integer"},
      {"dtype is null", one(R"("dtype":null,"shape":[4],"data_offsets":[0,4])"), "dtype is null"},
      {"shape is text", one(tensor("U8", "\"4\"", "[0,4]")), "shape is a string"},
      {"shape is a number", one(tensor("U8", "4", "[0,4]")), "shape is an integer"},
      {"shape holds text", one(tensor("U8", "[\"4\"]", "[0,4]")), "shape holds a string"},
      {"negative dimension", one(tensor("U8", "[-4]", "[0,4]")), "shape holds a negative integer"},
      {"two negative dimensions", one(tensor("U8", "[-2,-2]", "[0,4]")), "negative"},
      {"minus zero", one(tensor("U8", "[-0]", "[0,0]"), 0), "negative"},
      {"fractional dimension", one(tensor("U8", "[4.0]", "[0,4]")), "no 64-bit integer"},
      {"exponent", one(tensor("U8", "[4e0]", "[0,4]")), "no 64-bit integer"},
      {"dimension of 2^64", one(tensor("U8", "[18446744073709551616]", "[0,4]")),
       "no 64-bit integer"},
      {"dimension of 2^63", one(tensor("U8", "[9223372036854775808]", "[0,4]")),
       "does not fit 63 bits"},
      {"boolean dimension", one(tensor("U8", "[true]", "[0,4]")), "shape holds true or false"},
      {"65 dimensions",
       one(tensor(
           "U8",
           "[4" +
               [] {
                 std::string ones;
                 for (int i = 0; i < 64; ++i) ones += ",1";
                 return ones;
               }() +
               "]",
           "[0,4]")),
       "more than 64 dimensions"},
      {"elements overflow", one(tensor("U8", "[4294967296,4294967296]", "[0,4]")),
       "number of elements overflows"},
      {"elements overflow to zero", one(tensor("U8", "[4294967296,4294967296,1]", "[0,0]"), 0),
       "number of elements overflows"},
      {"elements overflow before a zero",
       one(tensor("U8", "[4611686018427387904,4,0]", "[0,0]"), 0), "number of elements overflows"},
      {"bits overflow", one(tensor("F32", "[576460752303423489]", "[0,4]")),
       "number of bits overflows"},
      {"odd count of F4", one(tensor("F4", "[3]", "[0,1]"), 1), "do not fill whole bytes"},
      {"odd count of F6", one(tensor("F6_E2M3", "[5]", "[0,3]"), 3), "do not fill whole bytes"},
      {"one offset", one(tensor("U8", "[4]", "[0]")), "fewer than two"},
      {"no offsets", one(tensor("U8", "[4]", "[]")), "fewer than two"},
      {"three offsets", one(tensor("U8", "[4]", "[0,4,4]")), "more than two"},
      {"negative offset", one(tensor("U8", "[4]", "[-4,0]")), "data_offsets holds a negative"},
      {"fractional offset", one(tensor("U8", "[4]", "[0,4.0]")), "data_offsets holds a number"},
      {"offsets as text", one(tensor("U8", "[4]", "\"0,4\"")), "data_offsets is a string"},
      {"offsets run backwards", one(tensor("U8", "[4]", "[4,0]")), "run backwards"},
      {"range too short", one(tensor("U8", "[5]", "[0,4]")),
       "span 4 bytes, but dtype and shape need 5"},
      {"range too long", one(tensor("U8", "[3]", "[0,4]")), "span 4 bytes"},
      {"empty tensor with bytes", one(tensor("U8", "[0]", "[0,4]")), "span 4 bytes"},
      {"scalar without bytes", one(tensor("F32", "[]", "[0,0]"), 0), "span 0 bytes"},
  };
}

std::string two(const std::string& a, const std::string& b, std::size_t data_bytes) {
  return container("{\"a\":{" + a + "},\"b\":{" + b + "}}", data_bytes);
}

std::vector<Case> tiling() {
  return {
      {"first tensor not at 0", one(tensor("U8", "[4]", "[1,5]"), 5), "leaving a hole after"},
      {"hole", two(good, tensor("U8", "[2]", "[5,7]"), 7),
       "leaving a hole after the previous end 4"},
      {"overlap", two(good, tensor("U8", "[4]", "[2,6]"), 6), "overlapping the previous end 4"},
      {"same range twice", two(good, good, 4), "overlapping"},
      {"empty tensor inside another", two(good, tensor("U8", "[0]", "[2,2]"), 4), "overlapping"},
      {"empty tensor beyond the end", two(good, tensor("U8", "[0]", "[9,9]"), 4), "leaving a hole"},
      {"two bytes missing", one(good, 2),
       "truncated: the tensors need 4 data bytes, the file has 2"},
      {"no data", one(good, 0), "truncated"},
      {"trailing byte", one(good, 5), "1 trailing bytes"},
      {"data without tensors", container("{}", 3), "3 trailing bytes"},
      {"offsets near 2^64", one(tensor("U8", "[4]", "[18446744073709551611,18446744073709551615]")),
       "leaving a hole"},
  };
}

TEST_F(SafetensorsHostile, EveryBrokenRuleIsNamed) {
  for (const auto& cases : {framing(), structure(), fields(), tiling()}) {
    for (const auto& hostile : cases) {
      expect_refused(put("hostile.safetensors", hostile.bytes), hostile);
    }
  }
}

TEST_F(SafetensorsHostile, TheNumberOfTensorsIsBounded) {
  const std::string fields = R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  std::string header = "{";
  for (int i = 0; i < 200'000; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + fields;
  }
  EXPECT_EQ(parse_safetensors_header(header + "}", "limit").tensors.size(), 200'000u);
  EXPECT_THAT(message_of<InputError>(
                  [&] { parse_safetensors_header(header + ",\"last" + fields + "}", "limit"); }),
              HasSubstr("limit: more than 200000 tensors"));
}

TEST_F(SafetensorsHostile, MessagesAreShortWhateverTheFileSays) {
  const std::string name(1000, 'n');
  const auto path = put("a", container("{\"" + name + "\":{\"dtype\":\"U8\"}}", 0));
  EXPECT_LT(message_of<InputError>([&] { SafetensorsFile{path}; }).size(),
            path.string().size() + 200);
}

/// Valid, with everything a header may hold.
std::string valid_file() {
  return container(
      R"({"__metadata__":{"format":"pt","k":"v\n"},"x":{"dtype":"BF16","shape":[2,3],)"
      R"("data_offsets":[0,12]},"none":{"dtype":"F32","shape":[0,7],"data_offsets":[12,12]},)"
      R"("s":{"dtype":"F64","shape":[],"data_offsets":[12,20]},)"
      R"("n":{"shape":[4],"data_offsets":[20,22],"dtype":"F4"}}   )",
      22);
}

/// True if it parses. Whatever it holds then must lie in the file; any exception but InputError
/// fails the test.
bool parses(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
    std::uint64_t end = file.raw_header().size();
    for (const auto& info : file.tensors()) {
      EXPECT_EQ(info.begin, end);
      end = info.end;
      std::vector<std::byte> data(info.bytes());
      file.read(info.begin, data);
    }
    EXPECT_EQ(end, file.file_size());
    return true;
  } catch (const InputError&) {
    return false;
  }
}

TEST_F(SafetensorsHostile, AnyChangedByteIsReadOrRefused) {
  const auto valid = valid_file();
  ASSERT_TRUE(parses(put("valid", valid)));
  std::mt19937 random(11);
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    auto bytes = valid;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
    accepted += parses(put("mutant", bytes));
  }
  // Changed data, names, white space and metadata are no errors; most of the header is.
  EXPECT_GT(accepted, 300);
  EXPECT_LT(accepted, 2000);
}

TEST_F(SafetensorsHostile, NoCutFileIsRead) {
  const auto valid = valid_file();
  for (std::size_t size = 0; size < valid.size(); ++size) {
    EXPECT_FALSE(parses(put("cut", valid.substr(0, size)))) << size;
  }
}

}  // namespace
}  // namespace mrp::io
