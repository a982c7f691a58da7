#include "jobs/failure.hpp"

#include <gtest/gtest.h>

#include "dist/error.hpp"

namespace mrp::jobs {
namespace {

// A rank that fails alone aborts its program: see test_errors.py.
TEST(FailureTest, ACommonFailureEndsWithRankZerosCode) {
  const auto comm = dist::Communicator::world();
  const auto failure = comm.is_root()
                           ? std::make_exception_ptr(dist::NumericalError("seen\non rank 0"))
                           : std::make_exception_ptr(dist::UsageError("seen elsewhere"));
  testing::internal::CaptureStderr();
  const int code = end_after_failure(comm, failure, std::chrono::seconds(60));
  const std::string printed = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, static_cast<int>(dist::ExitCode::numerical));
  EXPECT_EQ(printed, comm.is_root() ? "mrp: error: seen on rank 0\n" : "");
}

}  // namespace
}  // namespace mrp::jobs
