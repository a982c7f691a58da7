#include "jobs/subprocess.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/error.hpp"

namespace mrp::jobs {
namespace {

std::vector<std::string> lines;

Outcome shell(const std::string& script) {
  lines.clear();
  return run_program({"sh", "-c", script}, [](const std::string& line) { lines.push_back(line); });
}

TEST(SubprocessTest, PassesLinesAndExitCode) {
  const Outcome outcome =
      shell("echo one; echo; printf 'two'; echo noise >&2; echo 'error: last' >&2; exit 3");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.last_error_line, "error: last");
  EXPECT_THAT(lines, testing::ElementsAre("one", "", "two"));
}

TEST(SubprocessTest, ReadsBothStreamsWhateverTheirSize) {
  const Outcome outcome = shell(
      "i=0; while [ $i -lt 3000 ]; do echo $i-0123456789012345678901234567890123456789; "
      "echo $i-01234567890123456789012345678901234567890 >&2; i=$((i+1)); done");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(lines.size(), 3000U);
  EXPECT_THAT(outcome.last_error_line, testing::StartsWith("2999-"));
}

TEST(SubprocessTest, ASignalIsNoSuccess) {
  EXPECT_EQ(shell("kill -9 $$").exit_code, 137);
}

TEST(SubprocessTest, ArgumentsAreNotInterpreted) {
  lines.clear();
  run_program({"printf", "%s\n", "$HOME; *"},
              [](const std::string& line) { lines.push_back(line); });
  EXPECT_THAT(lines, testing::ElementsAre("$HOME; *"));
}

TEST(SubprocessTest, AMissingProgramIsNamed) {
  try {
    run_program({"/no/such/program"}, [](const std::string&) {});
    FAIL() << "no error";
  } catch (const dist::ResourceError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("/no/such/program"));
  }
}

}  // namespace
}  // namespace mrp::jobs
