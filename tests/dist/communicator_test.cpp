// Every verb on every type, with values whose sums are exact in any order.
#include "dist/communicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <utility>

#include "dist/error.hpp"
#include "dist/traffic.hpp"

namespace mrp::dist {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

/// A value that tells rank and position apart and fits every type.
template <class T>
T value_at(int rank, std::int64_t i) {
  return static_cast<T>(rank * 20 + i % 19);
}

template <class T>
std::vector<T> values_of(int rank, std::int64_t count) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(value_at<T>(rank, i));
  return values;
}

template <class T>
class CommunicatorOfType : public testing::Test {};

using AllTypes =
    testing::Types<std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t,
                   std::uint32_t, std::int64_t, std::uint64_t, float, double, char, std::byte>;
TYPED_TEST_SUITE(CommunicatorOfType, AllTypes);

TYPED_TEST(CommunicatorOfType, BroadcastsFromEveryRoot) {
  const auto comm = Communicator::world();
  for (int root = 0; root < comm.size(); ++root) {
    auto buffer = values_of<TypeParam>(comm.rank(), 23);
    comm.broadcast(std::span(buffer), root);
    EXPECT_EQ(buffer, values_of<TypeParam>(root, 23));
  }
}

TYPED_TEST(CommunicatorOfType, GathersInRankOrder) {
  const auto comm = Communicator::world();
  const auto mine = values_of<TypeParam>(comm.rank(), 5);
  std::vector<TypeParam> all(static_cast<std::size_t>(5 * comm.size()));
  comm.all_gather(std::span<const TypeParam>(mine), std::span(all));
  std::vector<TypeParam> expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const TypeParam value : values_of<TypeParam>(rank, 5)) expected.push_back(value);
  }
  EXPECT_EQ(all, expected);
}

TYPED_TEST(CommunicatorOfType, GathersUnevenParts) {
  const auto comm = Communicator::world();
  // Rank 1 has nothing; the last rank has most.
  const auto length_of = [](int rank) { return rank == 1 ? 0 : 3 + 2 * rank; };
  const auto mine = values_of<TypeParam>(comm.rank(), length_of(comm.rank()));
  const auto all = comm.all_gather_v(std::span<const TypeParam>(mine));
  std::vector<TypeParam> expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const auto value : values_of<TypeParam>(rank, length_of(rank))) expected.push_back(value);
  }
  EXPECT_EQ(all, expected);
}

TYPED_TEST(CommunicatorOfType, ExchangesUnevenParts) {
  const auto comm = Communicator::world();
  // From rank a to rank b: (3a + 2b) mod 5 values, so some parts are empty, also on the diagonal.
  const auto length = [](int from, int to) { return (3 * from + 2 * to) % 5; };
  const auto part = [&](int from, int to) {
    return values_of<TypeParam>((from + to) % 6, length(from, to));
  };
  std::vector<std::vector<TypeParam>> send;
  std::vector<std::vector<TypeParam>> expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    send.push_back(part(comm.rank(), rank));
    expected.push_back(part(rank, comm.rank()));
  }
  EXPECT_EQ(comm.all_to_all_v(send), expected);
}

template <class T>
class CommunicatorOfNumber : public testing::Test {};

using NumberTypes =
    testing::Types<std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t,
                   std::uint32_t, std::int64_t, std::uint64_t, float, double>;
TYPED_TEST_SUITE(CommunicatorOfNumber, NumberTypes);

TYPED_TEST(CommunicatorOfNumber, ReducesElementWise) {
  const auto comm = Communicator::world();
  const int size = comm.size();
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::min, ReduceOp::max}) {
    std::vector<TypeParam> buffer;
    for (int i = 0; i < 9; ++i) buffer.push_back(static_cast<TypeParam>(comm.rank() * 2 + i));
    comm.all_reduce(std::span(buffer), op);
    for (int i = 0; i < 9; ++i) {
      const int sum = size * (size - 1) + size * i;
      const int expected = op == ReduceOp::sum ? sum : op == ReduceOp::min ? i : 2 * (size - 1) + i;
      EXPECT_EQ(buffer[static_cast<std::size_t>(i)], static_cast<TypeParam>(expected));
    }
  }
  EXPECT_EQ(comm.all_reduce(static_cast<TypeParam>(comm.rank() + 1)),
            static_cast<TypeParam>(size * (size + 1) / 2));
}

static_assert(Reducible<double> && Reducible<std::int8_t>);
static_assert(!Reducible<char> && !Reducible<bool> && !Reducible<std::byte>);

TEST(Communicator, SumsAreTheSameBitsOnAllRanksAndEveryTime) {
  const auto comm = Communicator::world();
  std::mt19937_64 random(static_cast<std::uint64_t>(comm.rank()) + 7);
  std::normal_distribution<double> normal(0, 1);
  // The lengths reach the different algorithms of MPI libraries.
  for (const std::size_t length : {1U, 7U, 100U, 3001U, 65537U, 1000000U}) {
    std::vector<double> mine(length);
    for (double& value : mine) value = normal(random);
    auto first = mine;
    auto second = mine;
    comm.all_reduce(std::span(first));
    comm.all_reduce(std::span(second));
    EXPECT_EQ(std::memcmp(first.data(), second.data(), length * sizeof(double)), 0) << length;
    auto of_last = first;
    comm.broadcast(std::span(of_last), comm.size() - 1);
    EXPECT_EQ(std::memcmp(first.data(), of_last.data(), length * sizeof(double)), 0) << length;
  }
}

TEST(Communicator, TextsOfAnyLengthTravel) {
  const auto comm = Communicator::world();
  for (int root = 0; root < comm.size(); ++root) {
    for (const std::string& text :
         {std::string(), std::string("säge\0x", 7), std::string(70000, 'y')}) {
      const std::string mine = comm.rank() == root ? text : std::string("other");
      EXPECT_EQ(comm.broadcast(mine, root), text);
    }
  }
}

TEST(Communicator, EmptyBuffersAreFine) {
  const auto comm = Communicator::world();
  const std::uint64_t before = bytes_sent();
  std::vector<double> nothing;
  comm.broadcast(std::span(nothing), comm.size() - 1);
  comm.all_reduce(std::span(nothing));
  comm.all_gather(std::span<const double>(nothing), std::span(nothing));
  EXPECT_TRUE(comm.all_gather_v(std::span<const double>(nothing)).empty());
  const std::vector<std::vector<double>> no_parts(static_cast<std::size_t>(comm.size()));
  EXPECT_EQ(comm.all_to_all_v(no_parts), no_parts);
  EXPECT_EQ(bytes_sent(), before);
}

TEST(Communicator, SplitsByColorAndOrdersByKey) {
  const auto comm = Communicator::world();
  const auto part = comm.split(comm.rank() % 2, -comm.rank());
  const int members = (comm.size() + 1 - comm.rank() % 2) / 2;
  EXPECT_EQ(part.size(), members);
  EXPECT_EQ(part.rank(), members - 1 - comm.rank() / 2);  // highest world rank first
  // Only the members' values are summed.
  int expected = 0;
  for (int rank = comm.rank() % 2; rank < comm.size(); rank += 2) expected += rank;
  EXPECT_EQ(part.all_reduce(comm.rank()), expected);
}

TEST(Communicator, NodeHoldsAllRanksOfThisTest) {
  const auto comm = Communicator::world();
  const auto node = comm.split_node();
  EXPECT_EQ(node.size(), comm.size());
  EXPECT_EQ(node.rank(), comm.rank());
}

TEST(Communicator, SelfIsAlone) {
  const auto comm = Communicator::self();
  EXPECT_EQ(comm.size(), 1);
  EXPECT_TRUE(comm.is_root());
  EXPECT_EQ(comm.all_reduce(17), 17);
}

TEST(Communicator, MoveLeavesTheSourceEmpty) {
  auto first = Communicator::world();
  const MPI_Comm handle = first.get();
  auto second = std::move(first);
  EXPECT_EQ(second.get(), handle);
  EXPECT_EQ(first.get(), MPI_COMM_NULL);
  auto third = Communicator::self();
  third = std::move(second);
  EXPECT_EQ(third.get(), handle);
  third.barrier();
}

TEST(Communicator, CountsThePayloadOnce) {
  const auto comm = Communicator::world();
  const std::uint64_t before = bytes_sent();
  std::vector<double> ten(10);
  comm.broadcast(std::span(ten), comm.size() - 1);
  std::uint64_t expected = comm.rank() == comm.size() - 1 ? 80 : 0;
  EXPECT_EQ(bytes_sent() - before, expected);
  comm.all_reduce(std::span(ten));
  comm.all_gather_v(std::span<const double>(ten));
  expected += 160;
  EXPECT_EQ(bytes_sent() - before, expected);
  std::vector<std::vector<std::int16_t>> parts(static_cast<std::size_t>(comm.size()));
  parts.back().resize(3);
  comm.all_to_all_v(parts);
  EXPECT_EQ(bytes_sent() - before, expected + 6);
}

TEST(Communicator, ForeignErrorsComeBackAsExceptions) {
  const auto world = Communicator::world();
  const auto part = world.split(0, 0);
  const auto node = world.split_node();
  const auto self = Communicator::self();
  for (const Communicator* comm : {&world, &part, &node, &self}) {
    int value = 0;
    try {
      comm->broadcast(std::span(&value, 1), comm->size());
      ADD_FAILURE() << "a root outside the communicator was accepted";
    } catch (const MpiError& error) {
      EXPECT_THAT(error.what(), HasSubstr("MPI_Bcast("));
      EXPECT_THAT(error.what(), HasSubstr("MPI_ERR_ROOT"));
      EXPECT_THAT(error.what(), HasSubstr("dist/chunked.cpp:"));
    }
  }
}

TEST(Communicator, WrongSizesAreRefusedBeforeTheyTravel) {
  const auto comm = Communicator::world();
  const std::vector<int> send(3);
  std::vector<int> receive(3 * static_cast<std::size_t>(comm.size()) + 1);
  EXPECT_THROW(comm.all_gather(std::span(send), std::span(receive)), ContractError);
  const std::vector<std::vector<int>> parts(static_cast<std::size_t>(comm.size()) + 1);
  EXPECT_THROW(comm.all_to_all_v(parts), ContractError);
}

}  // namespace
}  // namespace mrp::dist
