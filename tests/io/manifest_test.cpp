#include "io/manifest.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

namespace fs = std::filesystem;
using dist::InputError;
using nlohmann::json;
using test::message_of;
using testing::HasSubstr;

Manifest example() {
  Manifest manifest;
  auto& stage = manifest.stages["capture"];
  stage.fingerprint = "0123";
  stage.version = "0.1.0";
  stage.ranks = 4;
  stage.seconds = 0.1;
  stage.peak_memory = std::uint64_t{5} << 30;
  stage.sent = std::uint64_t{6} << 30;
  stage.timers = {{"capture/forward", 3, 0.1, 0.2, 1e-300}, {"capture/write", 1, 0, 0, 0}};
  stage.outputs = {"states.h5"};
  manifest.stages["solve"].fingerprint = "4567";
  manifest.tensors["model.norm.weight"] = {false, std::string(64, 'a'), 0};
  manifest.tensors["model.layers.0.mlp.down_proj.weight"] = {true, std::string(64, '0'), 1.0 / 3};
  return manifest;
}

class ManifestTest : public test::LocalFolder {
 protected:
  fs::path path() const { return folder() / "manifest.json"; }
  /// The message for the example with one value replaced, or taken out.
  std::string refusal(const std::string& pointer, const json& value) const {
    example().write(path());
    auto content = json::parse(get(path()));
    content[json::json_pointer(pointer)] = value;
    put("manifest.json", content.dump());
    return message_of<InputError>([&] { Manifest::read(path()); });
  }
};

TEST_F(ManifestTest, ComesBackAsItWas) {
  const auto before = example();
  before.write(path());
  const auto after = Manifest::read(path());
  ASSERT_EQ(after.stages.size(), 2u);
  const auto& stage = after.stages.at("capture");
  const auto& expected = before.stages.at("capture");
  EXPECT_EQ(stage.fingerprint, expected.fingerprint);
  EXPECT_EQ(stage.version, expected.version);
  EXPECT_EQ(stage.ranks, 4);
  EXPECT_EQ(stage.seconds, 0.1);
  EXPECT_EQ(stage.peak_memory, expected.peak_memory);
  EXPECT_EQ(stage.sent, expected.sent);
  EXPECT_EQ(stage.outputs, expected.outputs);
  ASSERT_EQ(stage.timers.size(), 2u);
  EXPECT_EQ(stage.timers[0].name, "capture/forward");
  EXPECT_EQ(stage.timers[0].calls, 3);
  EXPECT_EQ(stage.timers[0].min, 0.1);
  EXPECT_EQ(stage.timers[0].mean, 0.2);
  EXPECT_EQ(stage.timers[0].max, 1e-300);
  ASSERT_EQ(after.tensors.size(), 2u);
  const auto& tensor = after.tensors.at("model.layers.0.mlp.down_proj.weight");
  EXPECT_TRUE(tensor.changed);
  EXPECT_EQ(tensor.leak, 1.0 / 3);
  EXPECT_EQ(tensor.sha256, std::string(64, '0'));
  EXPECT_FALSE(after.tensors.at("model.norm.weight").changed);
}

TEST_F(ManifestTest, EqualManifestsAreEqualFiles) {
  example().write(path());
  const auto first = get(path());
  Manifest::read(path()).write(path());
  EXPECT_EQ(get(path()), first);
  EXPECT_FALSE(fs::exists(folder() / "manifest.json.partial"));
}

TEST_F(ManifestTest, WithoutAFileItIsEmpty) {
  const auto manifest = Manifest::read(path());
  EXPECT_TRUE(manifest.stages.empty());
  EXPECT_TRUE(manifest.tensors.empty());
}

TEST_F(ManifestTest, EveryWrongFieldIsNamed) {
  struct Case {
    std::string pointer;
    json value;
    std::string message;
  };
  const std::vector<Case> cases = {
      {"/format", "other", "format is \"other\""},
      {"/format", nullptr, "format is missing"},
      {"/version", 2, "version is 2; allowed: an integer from 1 to 1"},
      {"/extra", 1, "extra is not known"},
      {"/stages", json::array(), "stages is array"},
      {"/stages/solve", 1, "stages.solve is number"},
      {"/stages/solve/extra", 1, "stages.solve.extra is not known"},
      {"/stages/solve/fingerprint", 1, "stages.solve.fingerprint is 1; allowed: a string"},
      {"/stages/solve/version", nullptr, "stages.solve.version is missing"},
      {"/stages/solve/ranks", 0, "stages.solve.ranks is 0"},
      {"/stages/solve/seconds", "1", "stages.solve.seconds is \"1\""},
      {"/stages/solve/seconds", -1.0, "stages.solve.seconds is -1.0"},
      {"/stages/solve/peak_memory", -1, "stages.solve.peak_memory is -1"},
      {"/stages/solve/outputs", json::array({1}), "stages.solve.outputs is [1]"},
      {"/stages/solve/timers", json::object(), "stages.solve.timers is {}"},
      {"/stages/capture/timers/1", 5, "stages.capture.timers[1] is number"},
      {"/stages/capture/timers/1/calls", 1.5, "stages.capture.timers[1].calls is 1.5"},
      {"/stages/capture/timers/1/more", 1, "stages.capture.timers[1].more is not known"},
      {"/tensors/model.norm.weight/changed", 0, "tensors.model.norm.weight.changed is 0"},
      {"/tensors/model.norm.weight/sha256", "abc", "allowed: 64 hexadecimal digits"},
      {"/tensors/model.norm.weight/sha256", std::string(64, 'X'), "64 hexadecimal digits"},
      {"/tensors/model.norm.weight/leak", nullptr, "tensors.model.norm.weight.leak is missing"},
      {"/tensors/model.norm.weight/note", "", "note is not known"},
  };
  for (const auto& wrong : cases) {
    const auto message = refusal(wrong.pointer, wrong.value);
    EXPECT_THAT(message, HasSubstr(wrong.message)) << wrong.pointer;
    EXPECT_THAT(message, HasSubstr(path().string()));
  }
}

TEST_F(ManifestTest, BrokenJsonIsRefused) {
  put("manifest.json", "{\"format\":");
  EXPECT_THROW(Manifest::read(path()), InputError);
  put("manifest.json", "[]");
  EXPECT_THROW(Manifest::read(path()), InputError);
}

TEST_F(ManifestTest, WhatCouldNotBeReadBackIsNotWritten) {
  auto manifest = example();
  manifest.tensors["model.norm.weight"].leak = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(manifest.write(path()), dist::ContractError);
  manifest = example();
  manifest.tensors["model.norm.weight"].sha256.clear();
  EXPECT_THROW(manifest.write(path()), dist::ContractError);
  EXPECT_TRUE(fs::is_empty(folder()));
}

}  // namespace
}  // namespace mrp::io
