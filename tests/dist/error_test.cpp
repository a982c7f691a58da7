#include "dist/error.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdint>
#include <new>
#include <stdexcept>

#include "dist/checked_cast.hpp"
#include "dist/communicator.hpp"

namespace {
/// What MPI_Barrier returns instead of doing its work; MPI_SUCCESS: the real one runs.
int fake_barrier_result = MPI_SUCCESS;
}  // namespace

// The program's own MPI_Barrier goes before the library's: a failing network without a network.
extern "C" int MPI_Barrier(MPI_Comm comm) {
  return fake_barrier_result != MPI_SUCCESS ? fake_barrier_result : PMPI_Barrier(comm);
}

namespace mrp::dist {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

template <class Throw>
Failure failure_of(Throw action) {
  try {
    action();
  } catch (...) {
    return describe(std::current_exception());
  }
  return {ExitCode::done, "nothing was thrown", true};
}

TEST(Error, FailingMpiCallNamesExpressionTextAndPlace) {
  const auto comm = Communicator::world();
  fake_barrier_result = MPI_ERR_INTERN;
  const Failure failure = failure_of([&] { comm.barrier(); });
  fake_barrier_result = MPI_SUCCESS;
  EXPECT_THAT(failure.message, MatchesRegex("MPI_Barrier\\(comm_\\) failed: MPI_ERR_INTERN.* "
                                            "\\[dist/communicator\\.cpp:[0-9]+\\]"));
  EXPECT_EQ(failure.code, ExitCode::other);
  comm.barrier();
}

TEST(Error, ClassesCarryTheirExitCode) {
  EXPECT_EQ(failure_of([] { throw UsageError("a"); }).code, ExitCode::usage);
  EXPECT_EQ(failure_of([] { throw InputError("a"); }).code, ExitCode::input);
  EXPECT_EQ(failure_of([] { throw NumericalError("a"); }).code, ExitCode::numerical);
  EXPECT_EQ(failure_of([] { throw ResourceError("a"); }).code, ExitCode::resources);
  EXPECT_EQ(failure_of([] { throw InputError("the text"); }).message, "the text");
}

TEST(Error, KnowsWhereItWasThrown) {
  const auto line = std::source_location::current().line() + 1;
  const InputError error("a");
  EXPECT_EQ(error.where().line(), line);
  EXPECT_THAT(error.where().file_name(), HasSubstr("error_test.cpp"));
}

TEST(Error, BrokenPreconditionNamesConditionTextAndPlace) {
  const int rows = -1;
  const Failure failure = failure_of([&] { MRP_EXPECT(rows > 0, "a matrix needs rows"); });
  EXPECT_THAT(failure.message, HasSubstr("rows > 0"));
  EXPECT_THAT(failure.message, HasSubstr("a matrix needs rows"));
  EXPECT_THAT(failure.message, HasSubstr("dist/error_test.cpp:"));
  MRP_EXPECT(rows < 0);
}

TEST(Error, ForeignExceptionsKeepTheirFirstLine) {
  const Failure failure = failure_of([] { throw std::runtime_error("first\nframe #0: second"); });
  EXPECT_EQ(failure.message, "first");
  EXPECT_EQ(failure.code, ExitCode::other);
  EXPECT_EQ(failure_of([] { throw 3; }).code, ExitCode::other);
}

TEST(Error, LackOfMemoryIsAMatterOfResources) {
  const Failure failure = failure_of([] { throw std::bad_alloc(); });
  EXPECT_EQ(failure.code, ExitCode::resources);
  EXPECT_THAT(failure.message, HasSubstr("out of memory"));
}

TEST(CheckedCast, KeepsWhatFitsAndRefusesTheRest) {
  EXPECT_EQ(checked_cast<int>(std::int64_t{2147483647}), 2147483647);
  EXPECT_EQ(checked_cast<std::uint8_t>(255), 255);
  EXPECT_THROW(checked_cast<int>(std::int64_t{2147483648}), ContractError);
  EXPECT_THROW(checked_cast<std::uint64_t>(-1), ContractError);
  const Failure failure = failure_of([] { checked_cast<int>(std::int64_t{1} << 40, "row count"); });
  EXPECT_THAT(failure.message, HasSubstr("row count = 1099511627776"));
  EXPECT_THAT(failure.message, HasSubstr("error_test.cpp:"));
}

}  // namespace
}  // namespace mrp::dist
