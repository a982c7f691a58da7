// An MPI communicator that owns its handle, returns errors as exceptions and counts in 64 bits.
#pragma once

#include <mpi.h>

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace mrp::dist {

enum class ReduceOp { sum, min, max };

/// Types that travel: the fixed-width integers, float, double, char and std::byte.
template <class T>
MPI_Datatype mpi_type();

/// Types with an arithmetic that MPI knows; char and bool are none.
template <class T>
concept Reducible = (std::integral<T> || std::floating_point<T>)&&!std::same_as<T, char> &&
                    !std::same_as<T, bool>;

/// Move-only. Must be destroyed before the Session. Messages above 2^30 elements go in chunks.
/// Every member that communicates is collective over the communicator.
class Communicator {
 public:
  /// Duplicate of MPI_COMM_WORLD with MPI_ERRORS_RETURN. Collective over the world.
  static Communicator world();
  /// Duplicate of MPI_COMM_SELF: one rank, no communication.
  static Communicator self();

  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  ~Communicator();

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  bool is_root() const noexcept { return rank_ == 0; }
  MPI_Comm get() const noexcept { return comm_; }

  /// Ranks of one `color` form a communicator, ordered by `key` then rank.
  Communicator split(int color, int key) const;
  /// The ranks that share this rank's node.
  Communicator split_node() const;

  void barrier() const;

  /// `buffer` of `root` to all; sizes must agree.
  template <class T>
  void broadcast(std::span<T> buffer, int root = 0) const;
  /// `text` of `root` to all, whatever its length.
  std::string broadcast(const std::string& text, int root = 0) const;

  /// In place, element-wise. Deterministic for a given rank count, and the same bits on all ranks
  /// as long as no element is NaN.
  template <Reducible T>
  void all_reduce(std::span<T> buffer, ReduceOp op = ReduceOp::sum) const;
  template <Reducible T>
  T all_reduce(T value, ReduceOp op = ReduceOp::sum) const;

  /// `send` [n] of each rank, concatenated in rank order into `receive` [size · n].
  template <class T>
  void all_gather(std::span<const T> send, std::span<T> receive) const;
  /// Parts of different lengths, concatenated in rank order.
  template <class T>
  std::vector<T> all_gather_v(std::span<const T> send) const;
  /// send[j] goes to rank j; the result holds one vector per source rank.
  template <class T>
  std::vector<std::vector<T>> all_to_all_v(const std::vector<std::vector<T>>& send) const;

 private:
  explicit Communicator(MPI_Comm owned);
  void release() noexcept;

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace mrp::dist
