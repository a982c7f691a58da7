#include "dist/communicator.hpp"

#include <cstddef>
#include <utility>

#include "dist/checked_cast.hpp"
#include "dist/chunked.hpp"
#include "dist/error.hpp"
#include "dist/traffic.hpp"

namespace mrp::dist {
namespace {

template <class T>
detail::Element element_of() {
  return {mpi_type<T>(), std::int64_t{sizeof(T)}};
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return MPI_SUM;
    case ReduceOp::min:
      return MPI_MIN;
    case ReduceOp::max:
      return MPI_MAX;
  }
  throw ContractError("op", "unknown ReduceOp", std::source_location::current());
}

}  // namespace

template <class T>
MPI_Datatype mpi_type() {
  if constexpr (std::is_same_v<T, std::int8_t>) return MPI_INT8_T;
  if constexpr (std::is_same_v<T, std::uint8_t>) return MPI_UINT8_T;
  if constexpr (std::is_same_v<T, std::int16_t>) return MPI_INT16_T;
  if constexpr (std::is_same_v<T, std::uint16_t>) return MPI_UINT16_T;
  if constexpr (std::is_same_v<T, std::int32_t>) return MPI_INT32_T;
  if constexpr (std::is_same_v<T, std::uint32_t>) return MPI_UINT32_T;
  if constexpr (std::is_same_v<T, std::int64_t>) return MPI_INT64_T;
  if constexpr (std::is_same_v<T, std::uint64_t>) return MPI_UINT64_T;
  if constexpr (std::is_same_v<T, float>) return MPI_FLOAT;
  if constexpr (std::is_same_v<T, double>) return MPI_DOUBLE;
  static_assert(std::is_trivially_copyable_v<T>);
  return MPI_BYTE;
}

Communicator Communicator::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  MRP_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  return Communicator(comm);
}

Communicator Communicator::self() {
  MPI_Comm comm = MPI_COMM_NULL;
  MRP_MPI(MPI_Comm_dup(MPI_COMM_SELF, &comm));
  return Communicator(comm);
}

Communicator::Communicator(MPI_Comm owned) : comm_(owned) {
  MRP_MPI(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  MRP_MPI(MPI_Comm_rank(comm_, &rank_));
  MRP_MPI(MPI_Comm_size(comm_, &size_));
}

Communicator::Communicator(Communicator&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), rank_(other.rank_), size_(other.size_) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  if (this != &other) {
    release();
    comm_ = std::exchange(other.comm_, MPI_COMM_NULL);
    rank_ = other.rank_;
    size_ = other.size_;
  }
  return *this;
}

Communicator::~Communicator() {
  release();
}

void Communicator::release() noexcept {
  if (comm_ == MPI_COMM_NULL) return;
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Comm_free(&comm_);
  comm_ = MPI_COMM_NULL;
}

Communicator Communicator::split(int color, int key) const {
  MPI_Comm comm = MPI_COMM_NULL;
  MRP_MPI(MPI_Comm_split(comm_, color, key, &comm));
  return Communicator(comm);
}

Communicator Communicator::split_node() const {
  MPI_Comm comm = MPI_COMM_NULL;
  MRP_MPI(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &comm));
  return Communicator(comm);
}

void Communicator::barrier() const {
  MRP_MPI(MPI_Barrier(comm_));
}

template <class T>
void Communicator::broadcast(std::span<T> buffer, int root) const {
  if (rank_ == root) count_sent(buffer.size_bytes());
  detail::broadcast(comm_, reinterpret_cast<std::byte*>(buffer.data()), std::ssize(buffer),
                    element_of<T>(), root);
}

std::string Communicator::broadcast(const std::string& text, int root) const {
  std::int64_t length = std::ssize(text);
  detail::broadcast(comm_, reinterpret_cast<std::byte*>(&length), 1, element_of<std::int64_t>(),
                    root);
  std::string result = rank_ == root ? text : std::string(static_cast<std::size_t>(length), '\0');
  broadcast(std::span<char>(result), root);
  return result;
}

template <Reducible T>
void Communicator::all_reduce(std::span<T> buffer, ReduceOp op) const {
  count_sent(buffer.size_bytes());
  detail::all_reduce(comm_, reinterpret_cast<std::byte*>(buffer.data()), std::ssize(buffer),
                     element_of<T>(), mpi_op(op));
}

template <Reducible T>
T Communicator::all_reduce(T value, ReduceOp op) const {
  all_reduce(std::span<T>(&value, 1), op);
  return value;
}

template <class T>
void Communicator::all_gather(std::span<const T> send, std::span<T> receive) const {
  MRP_EXPECT(receive.size() == send.size() * static_cast<std::size_t>(size_),
             "receive must hold size times send");
  count_sent(send.size_bytes());
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_), std::ssize(send));
  detail::all_gather(comm_, reinterpret_cast<const std::byte*>(send.data()),
                     reinterpret_cast<std::byte*>(receive.data()), counts, element_of<T>());
}

template <class T>
std::vector<T> Communicator::all_gather_v(std::span<const T> send) const {
  count_sent(send.size_bytes());
  const auto counts = detail::all_gather_counts(comm_, std::ssize(send));
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  std::vector<T> result(static_cast<std::size_t>(total));
  detail::all_gather(comm_, reinterpret_cast<const std::byte*>(send.data()),
                     reinterpret_cast<std::byte*>(result.data()), counts, element_of<T>());
  return result;
}

template <class T>
std::vector<std::vector<T>> Communicator::all_to_all_v(
    const std::vector<std::vector<T>>& send) const {
  MRP_EXPECT(checked_cast<int>(send.size()) == size_, "one vector per rank");
  std::vector<std::int64_t> send_counts;
  std::vector<const std::byte*> sources;
  for (const auto& part : send) {
    count_sent(part.size() * sizeof(T));
    send_counts.push_back(std::ssize(part));
    sources.push_back(reinterpret_cast<const std::byte*>(part.data()));
  }
  const auto receive_counts = detail::all_to_all_counts(comm_, send_counts);
  std::vector<std::vector<T>> result;
  std::vector<std::byte*> targets;
  for (const std::int64_t count : receive_counts) {
    auto& part = result.emplace_back(static_cast<std::size_t>(count));
    targets.push_back(reinterpret_cast<std::byte*>(part.data()));
  }
  detail::all_to_all(comm_, sources, send_counts, targets, receive_counts, element_of<T>());
  return result;
}

#define MRP_INSTANTIATE(T)                                                           \
  template MPI_Datatype mpi_type<T>();                                               \
  template void Communicator::broadcast<T>(std::span<T>, int) const;                 \
  template void Communicator::all_gather<T>(std::span<const T>, std::span<T>) const; \
  template std::vector<T> Communicator::all_gather_v<T>(std::span<const T>) const;   \
  template std::vector<std::vector<T>> Communicator::all_to_all_v<T>(                \
      const std::vector<std::vector<T>>&) const;

#define MRP_INSTANTIATE_NUMBER(T)                                          \
  MRP_INSTANTIATE(T)                                                       \
  template void Communicator::all_reduce<T>(std::span<T>, ReduceOp) const; \
  template T Communicator::all_reduce<T>(T, ReduceOp) const;

MRP_INSTANTIATE_NUMBER(std::int8_t)
MRP_INSTANTIATE_NUMBER(std::uint8_t)
MRP_INSTANTIATE_NUMBER(std::int16_t)
MRP_INSTANTIATE_NUMBER(std::uint16_t)
MRP_INSTANTIATE_NUMBER(std::int32_t)
MRP_INSTANTIATE_NUMBER(std::uint32_t)
MRP_INSTANTIATE_NUMBER(std::int64_t)
MRP_INSTANTIATE_NUMBER(std::uint64_t)
MRP_INSTANTIATE_NUMBER(float)
MRP_INSTANTIATE_NUMBER(double)
MRP_INSTANTIATE(char)
MRP_INSTANTIATE(std::byte)

}  // namespace mrp::dist
