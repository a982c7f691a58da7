#include "dist/timer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

using testing::HasSubstr;

std::vector<std::string> names_of(const std::vector<TimerEntry>& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.name);
  return names;
}

TEST(Timers, NamesNestAndCallsAdd) {
  const auto comm = Communicator::world();
  Timers timers;
  for (int i = 0; i < 3; ++i) {
    const Timers::Scope outer(timers, "capture");
    { const Timers::Scope inner(timers, "forward"); }
    { const Timers::Scope inner(timers, "write"); }
  }
  { const Timers::Scope other(timers, "forward"); }
  const auto entries = timers.reduce(comm);
  EXPECT_THAT(names_of(entries),
              testing::ElementsAre("capture", "capture/forward", "capture/write", "forward"));
  EXPECT_EQ(entries[1].calls, 3);
  EXPECT_EQ(entries[3].calls, 1);
  EXPECT_GE(entries[0].min, entries[1].min);
}

TEST(Timers, MinMeanMaxOverRanks) {
  const auto comm = Communicator::world();
  Timers timers;
  {
    const Timers::Scope scope(timers, "sleep");
    // Only the last rank works.
    if (comm.rank() == comm.size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(40));
  }
  const TimerEntry entry = timers.reduce(comm).front();
  EXPECT_GE(entry.max, 0.04);
  EXPECT_LE(entry.min, entry.mean);
  EXPECT_LE(entry.mean, entry.max);
  EXPECT_GE(entry.mean * comm.size(), entry.max * 0.999);
  if (comm.size() == 1) {
    EXPECT_EQ(entry.min, entry.max);
  }
}

TEST(Timers, NamesThatDifferBetweenRanksAreNamed) {
  const auto comm = Communicator::world();
  if (comm.size() == 1) GTEST_SKIP() << "needs two ranks";
  Timers timers;
  const bool last = comm.rank() == comm.size() - 1;
  { const Timers::Scope scope(timers, "load"); }
  { const Timers::Scope scope(timers, last ? "lost" : "loaf"); }
  std::string message;
  try {
    timers.reduce(comm);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("rank " + std::to_string(comm.size() - 1) +
                                 " has 'lost' where rank 0 has 'loaf'"));
}

TEST(Timers, AScopeMissingOnOneRankIsNamed) {
  const auto comm = Communicator::world();
  if (comm.size() == 1) GTEST_SKIP() << "needs two ranks";
  Timers timers;
  { const Timers::Scope scope(timers, "load"); }
  if (comm.rank() == 0) const Timers::Scope scope(timers, "extra");
  std::string message;
  try {
    timers.reduce(comm);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("'no further scope' where rank 0 has 'extra'"));
}

TEST(PeakMemory, SeesALargeAllocationAndForgetsItAfterReset) {
  constexpr std::size_t size = 64U << 20;
  reset_peak_memory();
  const auto before = peak_memory();
  ASSERT_GT(before, 0U);
  {
    std::vector<char> block(size, 'x');
    EXPECT_EQ(block[size / 2], 'x');
  }
  EXPECT_GE(peak_memory(), before + size * 9 / 10);
  reset_peak_memory();
  EXPECT_LT(peak_memory(), before + size / 2);
}

}  // namespace
}  // namespace mrp::dist
