// The thread budget as arithmetic; the session as a whole is tested from outside (session_test.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>

#include "dist/error.hpp"
#include "dist/thread_budget.hpp"

namespace mrp::dist::detail {
namespace {

TEST(ThreadBudget, EvenShareOfTheNode) {
  EXPECT_EQ(thread_budget(64, 64, 1), 64);
  EXPECT_EQ(thread_budget(64, 64, 4), 16);  // unbound ranks
  EXPECT_EQ(thread_budget(16, 64, 4), 16);  // bound to disjoint quarters
  EXPECT_EQ(thread_budget(8, 24, 2), 8);    // never more than its own cores
  EXPECT_EQ(thread_budget(7, 7, 2), 3);
  EXPECT_EQ(thread_budget(2, 2, 4), 1);  // more ranks than cores
}

TEST(ThreadBudget, EnvironmentIsAPositiveIntegerOrAnError) {
  EXPECT_EQ(requested_threads(nullptr), 0);
  EXPECT_EQ(requested_threads("12"), 12);
  for (const char* text : {"", "0", "-2", "4x", "many", "1.5", "99999999999"}) {
    EXPECT_THROW(requested_threads(text), UsageError) << text;
  }
}

TEST(Session, GivesTheThreadLevelAndExportsTheBudget) {
  int provided = 0;
  MPI_Query_thread(&provided);
  EXPECT_GE(provided, MPI_THREAD_SERIALIZED);
  const std::string budget = std::to_string(thread_budget_of_rank());
  EXPECT_STREQ(std::getenv("OMP_NUM_THREADS"), budget.c_str());
  EXPECT_STREQ(std::getenv("OPENBLAS_NUM_THREADS"), budget.c_str());
}

}  // namespace
}  // namespace mrp::dist::detail
