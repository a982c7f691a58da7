#include "jobs/workspace.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "dist/error.hpp"
#include "support/temp_folder.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;

class WorkLockTest : public testing::Test {
 protected:
  dist::Communicator self_ = dist::Communicator::self();
  test::TempFolder folder_{self_};
  fs::path work_ = folder_.path() / "a" / "work";
};

TEST_F(WorkLockTest, CreatesADirectoryForItsOwnerOnly) {
  const WorkLock lock(work_);
  EXPECT_EQ(fs::status(work_).permissions(), fs::perms::owner_all);
}

TEST_F(WorkLockTest, IsHeldOnce) {
  std::optional<WorkLock> lock(work_);
  try {
    const WorkLock second(work_);
    FAIL() << "locked twice";
  } catch (const dist::Error& error) {
    EXPECT_EQ(error.exit_code(), dist::ExitCode::resources);
    EXPECT_THAT(error.what(),
                testing::HasSubstr("is in use by process " + std::to_string(getpid())));
  }
  lock.reset();
  EXPECT_NO_THROW(WorkLock{work_});
}

TEST_F(WorkLockTest, LeavesNothingButWhatOthersPutThere) {
  { const WorkLock lock(work_); }
  EXPECT_FALSE(fs::exists(work_));
  {
    const WorkLock lock(work_);
    std::ofstream(work_ / "tokens.h5") << "x";
  }
  EXPECT_TRUE(fs::exists(work_ / "tokens.h5"));
  EXPECT_FALSE(fs::exists(work_ / "lock"));
}

TEST_F(WorkLockTest, RefusesAFileInItsPlace) {
  fs::create_directories(work_.parent_path());
  std::ofstream(work_) << "x";
  EXPECT_THROW(WorkLock{work_}, dist::ResourceError);
}

}  // namespace
}  // namespace mrp::jobs
