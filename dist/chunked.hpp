// Collectives of any length over MPI calls that count in int: the untyped core of Communicator.
// Private to dist; tests pass small chunks.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mrp::dist::detail {

/// Elements per MPI call: a power of two well inside int.
inline constexpr std::int64_t max_chunk = std::int64_t{1} << 30;

/// An MPI type and its size in bytes.
struct Element {
  MPI_Datatype type;
  std::int64_t size;
};

/// Collective over `comm`. `count` elements of `root` to all.
void broadcast(MPI_Comm comm, std::byte* data, std::int64_t count, Element element, int root,
               std::int64_t chunk = max_chunk);

/// Collective over `comm`. Element-wise and in place.
void all_reduce(MPI_Comm comm, std::byte* data, std::int64_t count, Element element, MPI_Op op,
                std::int64_t chunk = max_chunk);

/// Collective over `comm`. Rank r's counts[r] elements at `send` land in `receive` behind those of
/// the lower ranks; `counts` is the same on all ranks.
void all_gather(MPI_Comm comm, const std::byte* send, std::byte* receive,
                std::span<const std::int64_t> counts, Element element,
                std::int64_t chunk = max_chunk);

/// Collective over `comm`. One int64 from every rank to every rank.
std::vector<std::int64_t> all_gather_counts(MPI_Comm comm, std::int64_t mine);
/// Collective over `comm`. counts[j] goes to rank j.
std::vector<std::int64_t> all_to_all_counts(MPI_Comm comm, std::span<const std::int64_t> counts);

/// Collective over `comm`. send_counts[j] elements at send[j] go to rank j, receive_counts[j]
/// elements of rank j to receive[j].
void all_to_all(MPI_Comm comm, std::span<const std::byte* const> send,
                std::span<const std::int64_t> send_counts, std::span<std::byte* const> receive,
                std::span<const std::int64_t> receive_counts, Element element,
                std::int64_t chunk = max_chunk);

}  // namespace mrp::dist::detail
