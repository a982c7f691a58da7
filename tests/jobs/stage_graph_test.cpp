#include "jobs/stage_graph.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "support/temp_folder.hpp"

namespace mrp::jobs {
namespace {

/// Three stages in a row, each of which writes its fingerprint into a file of its name.
class StageGraphTest : public testing::Test {
 protected:
  StageGraphTest() {
    for (const std::string name : {"one", "two", "three"}) {
      Stage stage;
      stage.name = name;
      stage.help = "test";
      if (!stages_.empty()) stage.inputs = {stages_.back().name};
      stage.outputs = [name](const Job& job) {
        return std::vector<std::filesystem::path>{job.work.directory() / name};
      };
      stage.present = [name](const Job& job) {
        const auto file = job.work.directory() / name;
        return std::filesystem::exists(file) ? io::read_text(file) : "";
      };
      stage.run = [this, name](Job& job) {
        const dist::Timers::Scope scope(job.timers, "write");
        ran_.push_back(name);
        if (world_.is_root()) io::write_text(job.work.directory() / name, job.expected.at(name));
      };
      stages_.push_back(stage);
      job_.expected[name] = "first " + name;
    }
    job_.world = &world_;
  }

  std::vector<std::string> run_all() {
    ran_.clear();
    for (std::size_t i = 0; i < stages_.size(); ++i) run_stage(job_, stages_, i);
    return ran_;
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
  std::vector<Stage> stages_;
  std::vector<std::string> ran_;
  Job job_{{}, Workspace(folder_.path()), nullptr, 1, false, {}, {}, {}};
};

TEST_F(StageGraphTest, RunsWhatIsNotUpToDate) {
  EXPECT_THAT(run_all(), testing::ElementsAre("one", "two", "three"));
  EXPECT_THAT(run_all(), testing::ElementsAre());
  job_.expected["two"] = job_.expected["three"] = "second";
  EXPECT_THAT(run_all(), testing::ElementsAre("two", "three"));
  EXPECT_THAT(run_all(), testing::ElementsAre());
}

TEST_F(StageGraphTest, ForceRunsAll) {
  run_all();
  job_.force = true;
  EXPECT_THAT(run_all(), testing::ElementsAre("one", "two", "three"));
}

TEST_F(StageGraphTest, AStageNeedsCurrentInputs) {
  const auto error_of_two = [&]() -> std::string {
    try {
      run_stage(job_, stages_, 1);
    } catch (const dist::Error& error) {
      EXPECT_EQ(error.exit_code(), dist::ExitCode::input);
      return error.what();
    }
    return "no error";
  };
  const auto expected = testing::AllOf(testing::StartsWith("two needs "),
                                       testing::HasSubstr((folder_.path() / "one").string()),
                                       testing::HasSubstr("run mrp one first"));
  EXPECT_THAT(error_of_two(), expected);
  run_all();
  job_.expected["one"] = job_.expected["two"] = "second";
  EXPECT_THAT(error_of_two(), expected);
}

TEST_F(StageGraphTest, InputsThatTheJobLacksAreNotNeeded) {
  job_.expected.erase("one");
  EXPECT_FALSE(has_stage(job_, "one"));
  EXPECT_TRUE(has_stage(job_, "two"));
  run_stage(job_, stages_, 1);
  EXPECT_THAT(ran_, testing::ElementsAre("two"));
}

TEST_F(StageGraphTest, RecordsWhatRan) {
  run_all();
  world_.barrier();
  const auto manifest = io::Manifest::read(job_.work.manifest());
  ASSERT_EQ(manifest.stages.size(), 3U);
  const io::StageRecord& record = manifest.stages.at("two");
  EXPECT_EQ(record.fingerprint, "first two");
  EXPECT_EQ(record.ranks, world_.size());
  EXPECT_GT(record.peak_memory, 0U);
  EXPECT_THAT(record.outputs, testing::ElementsAre((folder_.path() / "two").string()));
  ASSERT_EQ(record.timers.size(), 1U);
  EXPECT_EQ(record.timers[0].name, "write");
  EXPECT_GE(record.seconds, record.timers[0].min);
}

TEST_F(StageGraphTest, AFailedStageIsNotRecorded) {
  stages_[1].run = [](Job&) { throw dist::NumericalError("no"); };
  EXPECT_THROW(run_all(), dist::NumericalError);
  world_.barrier();
  const auto manifest = io::Manifest::read(job_.work.manifest());
  EXPECT_TRUE(manifest.stages.contains("one"));
  EXPECT_FALSE(manifest.stages.contains("two"));
}

}  // namespace
}  // namespace mrp::jobs
