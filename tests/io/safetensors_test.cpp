#include "io/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "io/hash.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

namespace fs = std::filesystem;
using SafetensorsTest = test::LocalFolder;

/// Written by the Python package (tests/io/golden.py).
const fs::path golden = fs::path(MRP_TEST_DATA) / "io" / "all_types.safetensors";

std::vector<std::byte> data_of(const SafetensorsFile& file, const TensorInfo& info) {
  std::vector<std::byte> data(info.bytes());
  file.read(info.begin, data);
  return data;
}

const TensorInfo& find(const SafetensorsFile& file, const std::string& name) {
  const auto& tensors = file.tensors();
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorInfo& info) { return info.name == name; });
  if (found == tensors.end()) throw std::runtime_error("no " + name);
  return *found;
}

std::string container(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, 'd');
}

TEST_F(SafetensorsTest, ReadsWhatPythonWrote) {
  const SafetensorsFile file(golden);
  const auto expected = nlohmann::json::parse(get(fs::path(golden).replace_extension(".json")));
  EXPECT_EQ(file.tensors().size(), expected.size());
  for (const auto& info : file.tensors()) {
    Sha256 hash;
    hash.update(data_of(file, info));
    EXPECT_EQ(hash.finish(), expected.at(info.name)) << info.name;
  }
  EXPECT_EQ(find(file, "float8_e4m3fn.z").dtype, DType::f8_e4m3);
  EXPECT_EQ(find(file, "float4_e2m1fn_x2.z").shape, (std::vector<std::int64_t>{2, 6}));
  EXPECT_EQ(find(file, "scalar").shape, std::vector<std::int64_t>{});
  EXPECT_EQ(find(file, "scalar").elements(), 1);
  EXPECT_EQ(find(file, "empty").shape, (std::vector<std::int64_t>{4, 0, 3}));
  EXPECT_EQ(find(file, "empty").elements(), 0);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST_F(SafetensorsTest, WritesTheBytesThatPythonWrites) {
  const SafetensorsFile file(golden);
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorData> tensors;
  for (const auto& info : file.tensors()) data.push_back(data_of(file, info));
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto& info = file.tensors()[i];
    tensors.push_back({info.name, info.dtype, info.shape, data[i]});
  }
  // The order in which they are handed over must not matter.
  std::reverse(tensors.begin(), tensors.end());
  const auto path = folder() / "ours.safetensors";
  write_safetensors(path, tensors);
  EXPECT_EQ(get(path), get(golden));
  EXPECT_FALSE(fs::exists(partial_path(path)));
}

TEST_F(SafetensorsTest, RawHeaderRepeatsTheFile) {
  const SafetensorsFile file(golden);
  const auto& header = file.raw_header();
  EXPECT_EQ(header.size() % 8, 0u);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(header.data()), header.size()),
            get(golden).substr(0, header.size()));
}

TEST_F(SafetensorsTest, AcceptsWhiteSpaceAroundTheHeader) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  for (const auto& text : {header + "   ", " \n\t\r" + header, header + "\n\n", header}) {
    const SafetensorsFile file(put("a", container(text, 2)));
    EXPECT_EQ(data_of(file, find(file, "a")).size(), 2u);
  }
}

TEST_F(SafetensorsTest, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(SafetensorsFile(put("a", container("{}", 0))).tensors().empty());
  EXPECT_TRUE(SafetensorsFile(put("a", container(R"({"__metadata__":{}})", 0))).metadata().empty());
  write_safetensors(folder() / "b", {});
  EXPECT_TRUE(SafetensorsFile(folder() / "b").tensors().empty());
}

TEST_F(SafetensorsTest, SixBitTypesCountInBits) {
  const SafetensorsFile file(
      put("a", container(R"({"a":{"dtype":"F6_E3M2","shape":[2,4],"data_offsets":[0,6]}})", 6)));
  EXPECT_EQ(find(file, "a").bytes(), 6u);
  EXPECT_EQ(find(file, "a").elements(), 8);
}

TEST_F(SafetensorsTest, TensorsComeInTheOrderOfTheirData) {
  const SafetensorsFile file(
      put("a", container(R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},)"
                         R"("y":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                         R"("e":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
                         R"("d":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}})",
                         5)));
  std::vector<std::string> names;
  for (const auto& info : file.tensors()) names.push_back(info.name);
  EXPECT_EQ(names, (std::vector<std::string>{"y", "e", "z", "d"}));
}

TEST_F(SafetensorsTest, TensorsMayStartAnywhere) {
  const SafetensorsFile file(
      put("a", container(R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                         5)));
  std::vector<float> out(1);
  to_float(DType::f32, data_of(file, find(file, "f")), out);
  EXPECT_GT(out[0], 0);
}

TEST_F(SafetensorsTest, WrongDataSizeIsOurMistake) {
  const std::vector<std::byte> data(3);
  EXPECT_THROW(write_safetensors(folder() / "a", {{"a", DType::f32, {1}, data}}),
               dist::ContractError);
  EXPECT_TRUE(fs::is_empty(folder()));
}

}  // namespace
}  // namespace mrp::io
