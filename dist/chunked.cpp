#include "dist/chunked.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "dist/checked_cast.hpp"
#include "dist/error.hpp"

namespace mrp::dist::detail {
namespace {

static_assert(max_chunk <= std::numeric_limits<int>::max());

/// Calls visit(offset, length) for the pieces of [0, count).
template <class Visit>
void for_each_chunk(std::int64_t count, std::int64_t chunk, Visit visit) {
  for (std::int64_t offset = 0; offset < count; offset += chunk) {
    visit(offset, static_cast<int>(std::min(chunk, count - offset)));
  }
}

int rank_of(MPI_Comm comm) {
  int rank = 0;
  MRP_MPI(MPI_Comm_rank(comm, &rank));
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  MRP_MPI(MPI_Comm_size(comm, &size));
  return size;
}

/// Exchanges one pair of messages of different lengths: a side that is done talks to nobody.
struct Message {
  std::int64_t count;
  int peer;

  int length_at(std::int64_t offset, std::int64_t chunk) const {
    return static_cast<int>(std::clamp<std::int64_t>(count - offset, 0, chunk));
  }
  int peer_at(std::int64_t offset) const { return offset < count ? peer : MPI_PROC_NULL; }
};

}  // namespace

void broadcast(MPI_Comm comm, std::byte* data, std::int64_t count, Element element, int root,
               std::int64_t chunk) {
  for_each_chunk(count, chunk, [&](std::int64_t offset, int length) {
    MRP_MPI(MPI_Bcast(data + offset * element.size, length, element.type, root, comm));
  });
}

void all_reduce(MPI_Comm comm, std::byte* data, std::int64_t count, Element element, MPI_Op op,
                std::int64_t chunk) {
  for_each_chunk(count, chunk, [&](std::int64_t offset, int length) {
    MRP_MPI(
        MPI_Allreduce(MPI_IN_PLACE, data + offset * element.size, length, element.type, op, comm));
  });
}

void all_gather(MPI_Comm comm, const std::byte* send, std::byte* receive,
                std::span<const std::int64_t> counts, Element element, std::int64_t chunk) {
  const int rank = rank_of(comm);
  const int size = size_of(comm);
  MRP_EXPECT(static_cast<int>(counts.size()) == size);
  const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  if (total <= chunk) {
    std::vector<int> lengths;
    std::vector<int> offsets;
    int offset = 0;
    for (const std::int64_t count : counts) {
      lengths.push_back(static_cast<int>(count));
      offsets.push_back(offset);
      offset += static_cast<int>(count);
    }
    MRP_MPI(MPI_Allgatherv(send, lengths[static_cast<std::size_t>(rank)], element.type, receive,
                           lengths.data(), offsets.data(), element.type, comm));
    return;
  }
  // The displacements of MPI_Allgatherv are ints too, so long results travel as broadcasts.
  std::byte* part = receive;
  for (int root = 0; root < size; ++root) {
    const std::int64_t count = counts[static_cast<std::size_t>(root)];
    if (root == rank) std::copy_n(send, count * element.size, part);
    broadcast(comm, part, count, element, root, chunk);
    part += count * element.size;
  }
}

std::vector<std::int64_t> all_gather_counts(MPI_Comm comm, std::int64_t mine) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(size_of(comm)));
  MRP_MPI(MPI_Allgather(&mine, 1, MPI_INT64_T, counts.data(), 1, MPI_INT64_T, comm));
  return counts;
}

std::vector<std::int64_t> all_to_all_counts(MPI_Comm comm, std::span<const std::int64_t> counts) {
  MRP_EXPECT(static_cast<int>(counts.size()) == size_of(comm));
  std::vector<std::int64_t> received(counts.size());
  MRP_MPI(MPI_Alltoall(counts.data(), 1, MPI_INT64_T, received.data(), 1, MPI_INT64_T, comm));
  return received;
}

void all_to_all(MPI_Comm comm, std::span<const std::byte* const> send,
                std::span<const std::int64_t> send_counts, std::span<std::byte* const> receive,
                std::span<const std::int64_t> receive_counts, Element element, std::int64_t chunk) {
  const int rank = rank_of(comm);
  const int size = size_of(comm);
  // In round s everybody sends s ranks up and receives from s ranks down; round 0 is the own part.
  for (int step = 0; step < size; ++step) {
    const auto to = static_cast<std::size_t>((rank + step) % size);
    const auto from = static_cast<std::size_t>((rank + size - step) % size);
    const Message out{send_counts[to], static_cast<int>(to)};
    const Message in{receive_counts[from], static_cast<int>(from)};
    for_each_chunk(std::max(out.count, in.count), chunk, [&](std::int64_t offset, int) {
      const std::byte* source =
          out.peer_at(offset) == MPI_PROC_NULL ? nullptr : send[to] + offset * element.size;
      std::byte* target =
          in.peer_at(offset) == MPI_PROC_NULL ? nullptr : receive[from] + offset * element.size;
      MRP_MPI(MPI_Sendrecv(source, out.length_at(offset, chunk), element.type, out.peer_at(offset),
                           0, target, in.length_at(offset, chunk), element.type, in.peer_at(offset),
                           0, comm, MPI_STATUS_IGNORE));
    });
  }
}

}  // namespace mrp::dist::detail
