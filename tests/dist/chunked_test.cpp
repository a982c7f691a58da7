// Long messages in pieces, exercised with small chunks: every chunk size gives what one message
// gives.
#include "dist/chunked.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::dist::detail {
namespace {

constexpr std::int64_t chunks[] = {1, 2, 3, 7, 1000};
const Element int64 = {MPI_INT64_T, 8};

std::vector<std::int64_t> counted_from(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

std::byte* bytes(std::vector<std::int64_t>& values) {
  return reinterpret_cast<std::byte*>(values.data());
}

TEST(Chunked, BroadcastEqualsOneMessage) {
  const auto comm = Communicator::world();
  const int root = comm.size() - 1;
  for (const std::int64_t chunk : chunks) {
    for (const std::int64_t count : {0, 1, 6, 7, 8, 22}) {
      auto values = counted_from(1000 * comm.rank(), count);
      broadcast(comm.get(), bytes(values), count, int64, root, chunk);
      EXPECT_EQ(values, counted_from(1000 * root, count)) << chunk;
    }
  }
}

TEST(Chunked, AllReduceEqualsOneMessage) {
  const auto comm = Communicator::world();
  for (const std::int64_t chunk : chunks) {
    for (const std::int64_t count : {0, 1, 6, 7, 8, 22}) {
      auto values = counted_from(comm.rank(), count);
      all_reduce(comm.get(), bytes(values), count, int64, MPI_MAX, chunk);
      EXPECT_EQ(values, counted_from(comm.size() - 1, count)) << chunk;
    }
  }
}

TEST(Chunked, AllGatherEqualsOneMessage) {
  const auto comm = Communicator::world();
  for (const std::int64_t chunk : chunks) {
    std::vector<std::int64_t> counts;
    std::vector<std::int64_t> expected;
    for (int rank = 0; rank < comm.size(); ++rank) {
      counts.push_back(rank % 3 == 1 ? 0 : 5 + 4 * rank);
      const auto part = counted_from(1000 * rank, counts.back());
      expected.insert(expected.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all_gather_counts(comm.get(), counts[static_cast<std::size_t>(comm.rank())]), counts);
    auto mine = counted_from(1000 * comm.rank(), counts[static_cast<std::size_t>(comm.rank())]);
    std::vector<std::int64_t> all(expected.size());
    all_gather(comm.get(), bytes(mine), bytes(all), counts, int64, chunk);
    EXPECT_EQ(all, expected) << chunk;
  }
}

TEST(Chunked, AllToAllEqualsOneMessage) {
  const auto comm = Communicator::world();
  // Very different lengths in the two directions of a pair, some empty.
  const auto length = [](int from, int to) { return from < to ? 11 : (from + to) % 3; };
  for (const std::int64_t chunk : chunks) {
    std::vector<std::vector<std::int64_t>> send, receive, expected;
    std::vector<std::int64_t> send_counts;
    for (int rank = 0; rank < comm.size(); ++rank) {
      send_counts.push_back(length(comm.rank(), rank));
      send.push_back(counted_from(1000 * comm.rank() + 100 * rank, send_counts.back()));
      expected.push_back(counted_from(1000 * rank + 100 * comm.rank(), length(rank, comm.rank())));
    }
    const auto receive_counts = all_to_all_counts(comm.get(), send_counts);
    std::vector<const std::byte*> sources;
    std::vector<std::byte*> targets;
    for (std::size_t rank = 0; rank < send.size(); ++rank) {
      EXPECT_EQ(receive_counts[rank], std::ssize(expected[rank]));
      receive.emplace_back(expected[rank].size());
      sources.push_back(bytes(send[rank]));
      targets.push_back(bytes(receive.back()));
    }
    all_to_all(comm.get(), sources, send_counts, targets, receive_counts, int64, chunk);
    EXPECT_EQ(receive, expected) << chunk;
  }
}

}  // namespace
}  // namespace mrp::dist::detail
