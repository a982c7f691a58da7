#include "dist/agree.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

using testing::HasSubstr;

/// Runs agree with a failure on the ranks for which `fails` holds; returns what this rank catches.
template <class Fails, class Throw>
Failure agreed_failure(const Communicator& comm, Fails fails, Throw action) {
  try {
    agree(comm, [&] {
      if (fails(comm.rank())) action();
    });
  } catch (...) {
    return describe(std::current_exception());
  }
  return {ExitCode::done, "", true};
}

TEST(Agree, ReturnsEachRanksResult) {
  const auto comm = Communicator::world();
  EXPECT_EQ(agree(comm, [&] { return comm.rank() * 3; }), comm.rank() * 3);
  // Also results that cannot be copied.
  EXPECT_EQ(*agree(comm, [&] { return std::make_unique<int>(comm.rank()); }), comm.rank());
}

TEST(Agree, FailureOnAnyRankReachesAll) {
  const auto comm = Communicator::world();
  for (int failing = 0; failing < comm.size(); ++failing) {
    const Failure failure = agreed_failure(
        comm, [&](int rank) { return rank == failing; },
        [&] { throw InputError("file of rank " + std::to_string(comm.rank())); });
    EXPECT_EQ(failure.message, "file of rank " + std::to_string(failing));
    EXPECT_EQ(failure.code, ExitCode::input);
    EXPECT_EQ(failure.reporter, comm.is_root());
  }
}

TEST(Agree, LowestFailingRankWins) {
  const auto comm = Communicator::world();
  const int lowest = comm.size() / 2;
  const Failure failure = agreed_failure(
      comm, [&](int rank) { return rank >= lowest; },
      [&] {
        if (comm.rank() == lowest) throw ResourceError("disk of the lowest");
        throw InputError("another");
      });
  EXPECT_EQ(failure.message, "disk of the lowest");
  EXPECT_EQ(failure.code, ExitCode::resources);
}

TEST(Agree, ClassIsTheSameOnAllRanks) {
  const auto comm = Communicator::world();
  const auto last = [&](int rank) { return rank == comm.size() - 1; };
  const auto run = [&](auto action) {
    agree(comm, [&] {
      if (last(comm.rank())) action();
    });
  };
  EXPECT_THROW(run([] { throw UsageError("a"); }), UsageError);
  EXPECT_THROW(run([] { throw InputError("a"); }), InputError);
  EXPECT_THROW(run([] { throw NumericalError("a"); }), NumericalError);
  EXPECT_THROW(run([] { throw ResourceError("a"); }), ResourceError);
  EXPECT_THROW(run([] { throw std::bad_alloc(); }), ResourceError);
  EXPECT_THROW(run([] { throw std::runtime_error("a"); }), Error);
}

TEST(Agree, ForeignAndContractFailuresKeepTheirText) {
  const auto comm = Communicator::world();
  const auto last = [&](int rank) { return rank == comm.size() - 1; };
  const Failure foreign =
      agreed_failure(comm, last, [] { throw std::logic_error("from a library\nframe"); });
  EXPECT_EQ(foreign.message, "from a library");
  EXPECT_EQ(foreign.code, ExitCode::other);
  const Failure contract = agreed_failure(comm, last, [] { MRP_EXPECT(1 > 2); });
  EXPECT_THAT(contract.message, HasSubstr("1 > 2"));
  EXPECT_THAT(contract.message, HasSubstr("dist/agree_test.cpp:"));
}

TEST(Agree, GroupsAgreeOnTheirOwn) {
  const auto world = Communicator::world();
  const auto group = world.split(world.rank() % 2, world.rank());
  const Failure failure = agreed_failure(
      group, [&](int) { return world.rank() % 2 == 1; }, [] { throw InputError("odd"); });
  EXPECT_EQ(failure.message, world.rank() % 2 == 1 ? "odd" : "");
  // Joined later, the failure of a group is the failure of all and is printed by rank 0.
  const Failure joined = agreed_failure(
      world, [&](int rank) { return rank == world.size() - 1; },
      [&] { throw InputError("outer"); });
  EXPECT_EQ(joined.reporter, world.is_root());
}

}  // namespace
}  // namespace mrp::dist
