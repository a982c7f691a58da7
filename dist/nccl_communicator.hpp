// The collectives of Communicator on device buffers, through NCCL. Exists in builds with
// MRP_WITH_NCCL.
#pragma once

#ifdef MRP_WITH_NCCL

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>

#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::dist {

/// An NCCL or CUDA call that failed, or a collective that failed later on the device.
struct NcclError : Error {
  NcclError(const char* expression, const std::string& text, std::source_location where);
};

enum class DeviceType { f32, bf16, f16, i32, i64, u8 };

/// Move-only. One per rank and GPU, made from a Communicator (the id travels over MPI); the current
/// CUDA device at construction is the one used. Calls are enqueued on the given stream;
/// asynchronous errors surface as NcclError at the next call or at `wait`.
class NcclCommunicator {
 public:
  /// Collective over `comm`. @throws NcclError, or the agreed Error if a rank has no working
  /// device.
  explicit NcclCommunicator(const Communicator& comm);
  NcclCommunicator(NcclCommunicator&& other) noexcept;
  NcclCommunicator& operator=(NcclCommunicator&&) = delete;
  NcclCommunicator(const NcclCommunicator&) = delete;
  ~NcclCommunicator();

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

  /// `buffer` [count] of `root` to all, in place. Collective, like its siblings.
  void broadcast(void* buffer, std::int64_t count, DeviceType type, int root,
                 cudaStream_t stream) const;
  /// Element-wise, in place.
  void all_reduce(void* buffer, std::int64_t count, DeviceType type, ReduceOp op,
                  cudaStream_t stream) const;
  /// `send` [count] of each rank, concatenated in rank order into `receive` [size · count].
  void all_gather(const void* send, void* receive, std::int64_t count, DeviceType type,
                  cudaStream_t stream) const;
  /// Blocks until `stream` is done, polling for asynchronous errors of other ranks.
  void wait(cudaStream_t stream) const;

 private:
  /// @throws NcclError after aborting the communicator if a collective has failed.
  void check_alive() const;

  mutable ncclComm_t comm_ = nullptr;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace mrp::dist

#endif
