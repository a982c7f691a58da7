#include "dist/log.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace mrp::dist::log {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using Time = std::chrono::steady_clock::time_point;

/// A clock that only the test moves.
Time now;
Time fake_clock() {
  return now;
}
void pass(int seconds) {
  now += std::chrono::seconds(seconds);
}

/// What `action` writes to stderr as rank `rank`.
template <class Action>
std::string printed_by(int rank, Action action) {
  open(rank);
  testing::internal::CaptureStderr();
  action();
  const std::string text = testing::internal::GetCapturedStderr();
  open(0);
  return text;
}

/// The same with a terminal as stderr.
template <class Action>
std::string drawn_by(Action action) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  grantpt(terminal);
  unlockpt(terminal);
  const int screen = ::open(ptsname(terminal), O_RDWR | O_NOCTTY);
  const int saved = dup(STDERR_FILENO);
  dup2(screen, STDERR_FILENO);
  action();
  std::fflush(stderr);
  dup2(saved, STDERR_FILENO);
  fcntl(terminal, F_SETFL, O_NONBLOCK);
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = read(terminal, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  for (const int file : {terminal, screen, saved}) close(file);
  return text;
}

std::int64_t lines_in(const std::string& text) {
  return std::ranges::count(text, '\n');
}

constexpr const char* clock_pattern = "[0-9][0-9]:[0-9][0-9]:[0-9][0-9] ";

TEST(Log, OneLineWithTheTimeOfDay) {
  const auto text = printed_by(0, [] {
    info("solve: k = 5 {at} 3 sites");
    warn("ridge is small");
  });
  EXPECT_THAT(text, MatchesRegex(std::string(clock_pattern) + "solve: k = 5 \\{at\\} 3 sites\n" +
                                 clock_pattern + "warning: ridge is small\n"));
}

TEST(Log, OtherRanksAreSilent) {
  EXPECT_EQ(printed_by(1,
                       [] {
                         info("text");
                         warn("text");
                         Progress progress("capture", 10, "tokens", fake_clock);
                         pass(100);
                         progress.advance(5);
                       }),
            "");
}

TEST(Progress, SaysNothingAboutShortWork) {
  EXPECT_EQ(printed_by(0,
                       [] {
                         Progress progress("capture", 4, "tokens", fake_clock);
                         for (int i = 0; i < 4; ++i) {
                           pass(1);
                           progress.advance(1);
                         }
                       }),
            "");
}

TEST(Progress, ShowsShareRateAndTimeLeft) {
  const auto text = printed_by(0, [] {
    Progress progress("capture", 4000, "tokens", fake_clock);
    pass(8);
    progress.advance(1000);
  });
  EXPECT_THAT(text,
              MatchesRegex(std::string(clock_pattern) +
                           "capture: 25 %, 1000 tokens, 125 tokens/s, 0:24 left\n" + clock_pattern +
                           "capture: 25 %, 1000 tokens, 125 tokens/s, 0:08 in all\n"));
}

TEST(Progress, WorkThatGoesOnIsAsFastAsWhatIsDoneNow) {
  const auto text = printed_by(0, [] {
    Progress progress("refine", 1000, "steps", fake_clock);
    progress.skip(700);
    pass(10);
    progress.advance(20);
  });
  EXPECT_THAT(text, HasSubstr("refine: 72 %, 720 steps, 2 steps/s, 2:20 left\n"));
}

TEST(Progress, ShowsHoursOfSlowWork) {
  const auto text = printed_by(0, [] {
    Progress progress("solve", 3, "sites", fake_clock);
    pass(4000);
    progress.advance(1);
  });
  EXPECT_THAT(text, HasSubstr("33 %, 1 sites, 0.00025 sites/s, 2:13:20 left"));
}

TEST(Progress, WritesALineEveryTenSecondsToAFile) {
  const auto text = printed_by(0, [] {
    Progress progress("merge", 600, "MB", fake_clock);
    for (int i = 0; i < 60; ++i) {
      pass(1);
      progress.advance(10);
    }
  });
  // After 5, 15, 25, 35, 45 and 55 s, and at the end.
  EXPECT_EQ(lines_in(text), 7);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_THAT(text, HasSubstr("merge: 100 %, 600 MB, 10 MB/s, 1:00 in all\n"));
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  const auto text = drawn_by([] {
    Progress progress("merge", 100, "MB", fake_clock);
    for (int i = 0; i < 10; ++i) {
      pass(1);
      progress.advance(10);
      if (i == 6) info("a message in between");
    }
  });
  // Drawn each second from the fifth on: every line goes up again and is erased by the next.
  EXPECT_THAT(text, HasSubstr("merge: 50 %"));
  EXPECT_THAT(text, HasSubstr("merge: 60 %"));
  std::int64_t up = 0;
  std::int64_t erased = 0;
  for (std::size_t i = 0; (i = text.find("\x1b[A", i)) != std::string::npos; ++i) ++up;
  for (std::size_t i = 0; (i = text.find("\r\x1b[K", i)) != std::string::npos; ++i) ++erased;
  EXPECT_EQ(up, 6);
  EXPECT_EQ(erased, 6);
  EXPECT_EQ(lines_in(text) - up, 2);  // what stays: the message and the final line
}

}  // namespace
}  // namespace mrp::dist::log
