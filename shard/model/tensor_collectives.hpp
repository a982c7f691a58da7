// Collectives on torch tensors: MPI for host tensors, NCCL for CUDA tensors, the same verbs.
#pragma once

#include <torch/types.h>

#include <memory>
#include <optional>

#include "dist/communicator.hpp"
#include "dist/nccl_communicator.hpp"

namespace mrp::shard {

/// The device of this rank: CPU, or the GPU whose index is the rank's number on its node.
/// Collective over `world`. @throws UsageError on all ranks if a node has more ranks than GPUs or
/// the build has no CUDA.
torch::Device local_device(torch::DeviceType type, const dist::Communicator& world);

/// Refers to the communicator, which must outlive it.
class TensorCollectives {
 public:
  /// Collective over `comm`. Tensors given to the members must live on `device`.
  TensorCollectives(const dist::Communicator& comm, torch::Device device);

  int rank() const noexcept { return comm_->rank(); }
  int size() const noexcept { return comm_->size(); }

  /// Collective. The element-wise result over all ranks; shape and type (f32, bf16, i64) must
  /// agree. The result may share storage with `tensor`, which must not be used afterwards. On the
  /// host, bf16 is summed in fp32 and rounded once.
  torch::Tensor all_reduce(torch::Tensor tensor, dist::ReduceOp op = dist::ReduceOp::sum) const;

 private:
  torch::Tensor all_reduce_host(torch::Tensor tensor, dist::ReduceOp op) const;
  torch::Tensor all_reduce_device(torch::Tensor tensor, dist::ReduceOp op) const;

  const dist::Communicator* comm_;
  torch::Device device_;
#ifdef MRP_WITH_NCCL
  std::optional<dist::NcclCommunicator> nccl_;
#endif
};

/// Σ over the ranks of `x`; gradients pass unchanged (g of Megatron-LM, arXiv 1909.08053).
/// Collective; its gradient is not.
torch::Tensor reduce_from_ranks(const torch::Tensor& x, const TensorCollectives& ranks);

/// `x`, complete on every rank, where a computation split over the ranks begins: gradients are
/// summed over the ranks (f of Megatron-LM). Not collective; its gradient is.
torch::Tensor copy_to_ranks(const torch::Tensor& x, const TensorCollectives& ranks);

}  // namespace mrp::shard
