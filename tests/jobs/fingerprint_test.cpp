#include "jobs/fingerprint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "io/file.hpp"
#include "io/safetensors.hpp"
#include "support/temp_folder.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;

/// A job whose files exist, in a folder of this rank alone.
class FingerprintTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(folder_.path() / "base");
    write_weights({1, 2});
    write("base/tokenizer.json", "{}");
    write("base/config.json", "{}");
    write("base/README.md", "words");
    write("forget.jsonl", "{\"text\": \"a\"}");
    write("retain.jsonl", "{\"text\": \"b\"}");
    write("world.jsonl", "{\"text\": \"c\"}");
  }

  void write(const std::string& name, const std::string& text) {
    io::write_text(folder_.path() / name, text);
  }

  void write_weights(std::vector<float> values) {
    io::write_safetensors(folder_.path() / "base/model.safetensors",
                          {{"w",
                            io::DType::f32,
                            {static_cast<std::int64_t>(values.size())},
                            std::as_bytes(std::span<const float>(values))}});
  }

  Fingerprints expected(const std::vector<std::string>& overrides = {},
                        const std::string& preset = "fast") const {
    return expected_fingerprints(
        parse_job(folder_.path() / "job.yaml",
                  "preset: " + preset +
                      "\nmodel: base\noutput: out\ndata: {forget: forget.jsonl, "
                      "retain: retain.jsonl, evaluate: {world: world.jsonl}}\n",
                  overrides));
  }

  static Names changed(const Fingerprints& before, const Fingerprints& after) {
    Names names;
    for (const auto& [name, value] : before) {
      if (!after.contains(name) || after.at(name) != value) names.insert(name);
    }
    return names;
  }

  /// The names of what a job is expected to make.
  static Names names(const Fingerprints& fingerprints) {
    Names all;
    for (const auto& [name, value] : fingerprints) all.insert(name);
    return all;
  }

  const Names from_merge_{"merge", "evaluate", "relearn"};
  const Names from_solve_{"solve", "merge", "evaluate", "relearn"};
  const Names from_capture_{"capture", "solve", "merge", "evaluate", "relearn"};
  const Names from_refine_{"refine", "merge", "evaluate", "relearn"};
  const Names from_sample_{"sample", "refine", "merge", "evaluate", "relearn"};

 private:
  dist::Communicator self_ = dist::Communicator::self();
  test::TempFolder folder_{self_};
};

TEST_F(FingerprintTest, IsTheSameForTheSameJob) {
  EXPECT_EQ(expected(), expected());
  EXPECT_EQ(expected().at("solve").size(), 32U);
}

TEST_F(FingerprintTest, SettingsChangeWhatDependsOnThemAndNothingElse) {
  const Fingerprints before = expected();
  const std::pair<const char*, Names> cases[] = {
      {"seed=7", from_solve_},
      {"subspace.rule=cpca", from_solve_},
      {"subspace.dimension=3", from_solve_},
      {"subspace.ridge=0.5", from_solve_},
      {"sites.layers=0", from_capture_},
      {"sites.positions=all", from_capture_},
      {"sites.modules=[qkv.input]", from_capture_},
      {"sites.samples=9", from_capture_},
      {"compute=fp32", from_capture_},
      {"refine.samples=9", {}},
      {"refine.steps=9", {}},
      {"merge.rounding=nearest", from_merge_},
      {"evaluate.holdout=world", {"evaluate"}},
      {"evaluate.control=base", {"evaluate", "relearn"}},
      {"evaluate.generate=true", {"evaluate"}},
      {"relearn.steps=[3]", {"relearn"}},
      {"relearn.attackers=[int4]", {"relearn"}},
      {"relearn.learning_rates=[1]", {"relearn"}},
      {"relearn.seeds=[1, 2]", {"relearn"}},
      {"data.overlap_limit=0.5", {"prepare"}},
      {"data.evaluate.more=world.jsonl", {"prepare", "evaluate"}},
      // Neither where things lie nor how the work is spread changes what is computed.
      {"device=cpu", {}},
      {"parallel.batch_tokens=7", {}},
      {"parallel.tensor=1", {}},
      {"parallel.residency=layer", {}},
      {"work=elsewhere", {}},
      {"output=elsewhere", {}}};
  for (const auto& [override, names] : cases) {
    EXPECT_EQ(changed(before, expected({override})), names) << override;
  }
  Names all{"prepare", "set.forget", "set.retain", "set.world"};
  all.insert(from_capture_.begin(), from_capture_.end());
  EXPECT_EQ(changed(before, expected({"data.max_tokens=9"})), all);
  EXPECT_EQ(changed(before, expected({"data.template=plain"})), all);
}

TEST_F(FingerprintTest, TrainingDependsOnItsOwnSettings) {
  const Fingerprints before = expected({}, "reliable");
  const std::pair<const char*, Names> cases[] = {{"seed=7", from_sample_},
                                                 {"compute=fp32", from_sample_},
                                                 {"refine.samples=9", from_sample_},
                                                 {"refine.sample_tokens=9", from_sample_},
                                                 {"refine.samples=0", from_sample_},
                                                 {"refine.train=none", from_sample_},
                                                 {"refine.train=lora", from_refine_},
                                                 {"refine.steps=9", from_refine_},
                                                 {"refine.shrink=1", from_refine_},
                                                 {"refine.directions=4", from_refine_},
                                                 {"refine.stop_below=1", from_refine_},
                                                 {"refine.sample_batch=9", from_refine_},
                                                 {"refine.forget_loss=npo", from_refine_},
                                                 {"refine.tamper_resistance=0", from_refine_},
                                                 {"project=true", from_refine_},
                                                 {"relearn.steps=[3]", {"relearn"}},
                                                 {"evaluate.generate=true", {"evaluate"}},
                                                 // Without a projection nobody reads these.
                                                 {"sites.layers=0", {}},
                                                 {"sites.samples=99999", {}},
                                                 {"subspace.rule=cpca", {}}};
  for (const auto& [override, names] : cases) {
    EXPECT_EQ(changed(before, expected({override}, "reliable")), names) << override;
  }
}

TEST_F(FingerprintTest, AJobHasTheStagesThatItsSettingsAskFor) {
  const Names always{"base",    "set.forget", "set.retain", "set.world",
                     "prepare", "merge",      "evaluate",   "relearn"};
  const auto expect_stages = [&](const std::string& preset,
                                 const std::vector<std::string>& overrides, Names more) {
    more.insert(always.begin(), always.end());
    EXPECT_EQ(names(expected(overrides, preset)), more) << preset;
  };
  expect_stages("fast", {}, {"capture", "solve"});
  expect_stages("fast", {"project=false"}, {});
  expect_stages("fast", {"sites.samples=9"}, {"sample", "capture", "solve"});
  expect_stages("fast", {"refine.train=lora"}, {"capture", "solve", "refine"});
  expect_stages("reliable", {}, {"sample", "refine"});
  expect_stages("reliable", {"project=true"}, {"capture", "solve", "sample", "refine"});
  expect_stages("reliable", {"refine.samples=0"}, {"refine"});
  expect_stages("reliable", {"refine.train=none"}, {});
  expect_stages("paper", {}, {"capture", "solve", "refine"});
}

TEST_F(FingerprintTest, SamplesAreDrawnOnceForAll) {
  const auto sample = [&](const std::vector<std::string>& overrides) {
    return expected(overrides, "reliable").at("sample");
  };
  const std::string trained = sample({"project=true"});
  EXPECT_EQ(sample({"project=true", "sites.samples=9"}), trained);
  EXPECT_NE(sample({"project=true", "sites.samples=20000"}), trained);
  EXPECT_EQ(sample({"project=true", "sites.samples=16000", "refine.samples=0"}), trained);
}

TEST_F(FingerprintTest, APresetIsNoMoreThanItsDefaults) {
  EXPECT_EQ(expected({"project=false", "refine.train=subspace", "refine.samples=16000",
                      "refine.tamper_resistance=150"},
                     "fast"),
            expected({}, "reliable"));
}

TEST_F(FingerprintTest, FilesChangeWhatIsMadeOfThem) {
  const auto expect_changed = [&](const std::string& file, const std::string& text, Names names) {
    const Fingerprints before = expected();
    write(file, text);
    EXPECT_EQ(changed(before, expected()), names) << file;
  };
  Names of_forget{"prepare", "set.forget"};
  of_forget.insert(from_capture_.begin(), from_capture_.end());
  expect_changed("forget.jsonl", "{\"text\": \"d\"}", of_forget);
  expect_changed("world.jsonl", "{\"text\": \"e\"}", {"prepare", "set.world", "evaluate"});
  expect_changed("base/README.md", "other words", {});
  Names of_tokenizer{"prepare", "set.forget", "set.retain", "set.world"};
  of_tokenizer.insert(from_capture_.begin(), from_capture_.end());
  expect_changed("base/tokenizer.json", "{ }", of_tokenizer);
}

TEST_F(FingerprintTest, RewrittenWeightsChangeAllButTheTokens) {
  const Fingerprints before = expected();
  write_weights({1, 2, 3});
  Names names{"base"};
  names.insert(from_capture_.begin(), from_capture_.end());
  EXPECT_EQ(changed(before, expected()), names);
}

TEST_F(FingerprintTest, AControlIsKnownByItsWeights) {
  const std::vector<std::string> control{"evaluate.control=base"};
  EXPECT_FALSE(expected().contains("control"));
  EXPECT_EQ(expected(control).at("control"), expected().at("base"));
}

TEST_F(FingerprintTest, AMissingFileIsNamed) {
  try {
    expected({"data.forget=gone.jsonl"});
    FAIL() << "no error";
  } catch (const dist::Error& error) {
    EXPECT_EQ(error.exit_code(), dist::ExitCode::input);
    EXPECT_THAT(error.what(), testing::HasSubstr("gone.jsonl"));
  }
}

}  // namespace
}  // namespace mrp::jobs
