#include "dist/nccl_communicator.hpp"

#ifdef MRP_WITH_NCCL

#include <fmt/format.h>

#include <span>
#include <thread>
#include <utility>

#include "dist/agree.hpp"
#include "dist/traffic.hpp"

namespace mrp::dist {
namespace {

void check_nccl(ncclResult_t result, ncclComm_t comm, const char* expression,
                std::source_location where = std::source_location::current()) {
  if (result == ncclSuccess) return;
  throw NcclError(expression,
                  fmt::format("{} ({})", ncclGetErrorString(result), ncclGetLastError(comm)),
                  where);
}

void check_cuda(cudaError_t status, const char* expression,
                std::source_location where = std::source_location::current()) {
  if (status != cudaSuccess) throw NcclError(expression, cudaGetErrorString(status), where);
}

#define MRP_NCCL(comm, call) check_nccl((call), (comm), #call)
#define MRP_CUDA(call) check_cuda((call), #call)

ncclDataType_t nccl_type(DeviceType type) {
  switch (type) {
    case DeviceType::f32:
      return ncclFloat32;
    case DeviceType::bf16:
      return ncclBfloat16;
    case DeviceType::f16:
      return ncclFloat16;
    case DeviceType::i32:
      return ncclInt32;
    case DeviceType::i64:
      return ncclInt64;
    case DeviceType::u8:
      return ncclUint8;
  }
  throw ContractError("type", "unknown DeviceType", std::source_location::current());
}

std::uint64_t payload(std::int64_t count, DeviceType type) {
  const bool two = type == DeviceType::bf16 || type == DeviceType::f16;
  const std::uint64_t width = type == DeviceType::u8    ? 1
                              : two                     ? 2
                              : type == DeviceType::i64 ? 8
                                                        : 4;
  return static_cast<std::uint64_t>(count) * width;
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return ncclSum;
    case ReduceOp::min:
      return ncclMin;
    case ReduceOp::max:
      return ncclMax;
  }
  throw ContractError("op", "unknown ReduceOp", std::source_location::current());
}

std::size_t checked_count(std::int64_t count) {
  MRP_EXPECT(count >= 0);
  return static_cast<std::size_t>(count);
}

}  // namespace

NcclError::NcclError(const char* expression, const std::string& text, std::source_location where)
    : Error(ExitCode::other, fmt::format("{} failed: {}", expression, text), where) {}

NcclCommunicator::NcclCommunicator(const Communicator& comm)
    : rank_(comm.rank()), size_(comm.size()) {
  // A rank without a working device must be known before ncclCommInitRank, where the others would
  // wait for it.
  ncclUniqueId id{};
  agree(comm, [&] {
    MRP_CUDA(cudaFree(nullptr));  // creates the context
    if (comm.is_root()) MRP_NCCL(nullptr, ncclGetUniqueId(&id));
  });
  comm.broadcast(std::span<char>(id.internal));
  MRP_NCCL(nullptr, ncclCommInitRank(&comm_, size_, id, rank_));
}

NcclCommunicator::NcclCommunicator(NcclCommunicator&& other) noexcept
    : comm_(std::exchange(other.comm_, nullptr)), rank_(other.rank_), size_(other.size_) {}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ != nullptr) ncclCommDestroy(comm_);
}

void NcclCommunicator::broadcast(void* buffer, std::int64_t count, DeviceType type, int root,
                                 cudaStream_t stream) const {
  check_alive();
  if (rank_ == root) count_sent(payload(count, type));
  MRP_NCCL(comm_, ncclBroadcast(buffer, buffer, checked_count(count), nccl_type(type), root, comm_,
                                stream));
}

void NcclCommunicator::all_reduce(void* buffer, std::int64_t count, DeviceType type, ReduceOp op,
                                  cudaStream_t stream) const {
  check_alive();
  count_sent(payload(count, type));
  MRP_NCCL(comm_, ncclAllReduce(buffer, buffer, checked_count(count), nccl_type(type), nccl_op(op),
                                comm_, stream));
}

void NcclCommunicator::all_gather(const void* send, void* receive, std::int64_t count,
                                  DeviceType type, cudaStream_t stream) const {
  check_alive();
  count_sent(payload(count, type));
  MRP_NCCL(comm_,
           ncclAllGather(send, receive, checked_count(count), nccl_type(type), comm_, stream));
}

void NcclCommunicator::wait(cudaStream_t stream) const {
  for (;;) {
    check_alive();
    const cudaError_t status = cudaStreamQuery(stream);
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) check_cuda(status, "cudaStreamQuery(stream)");
    std::this_thread::yield();
  }
}

void NcclCommunicator::check_alive() const {
  MRP_EXPECT(comm_ != nullptr, "this NCCL communicator was moved from or has failed");
  ncclResult_t state = ncclSuccess;
  MRP_NCCL(comm_, ncclCommGetAsyncError(comm_, &state));
  if (state == ncclSuccess) return;
  const std::string text =
      fmt::format("{} ({})", ncclGetErrorString(state), ncclGetLastError(comm_));
  // Kernels that wait for the lost rank end only when the communicator is aborted.
  ncclCommAbort(std::exchange(comm_, nullptr));
  throw NcclError("a collective on the device", text, std::source_location::current());
}

}  // namespace mrp::dist

#endif
