#include "shard/model/tensor_collectives.hpp"

#include <span>

#ifdef MRP_WITH_NCCL
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#endif
#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"

namespace mrp::shard {
namespace {

template <class T>
void reduce_span(torch::Tensor& tensor, const dist::Communicator& comm, dist::ReduceOp op) {
  comm.all_reduce(std::span(tensor.data_ptr<T>(), static_cast<std::size_t>(tensor.numel())), op);
}

#ifdef MRP_WITH_NCCL
dist::DeviceType device_type(const torch::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::kFloat32:
      return dist::DeviceType::f32;
    case torch::kBFloat16:
      return dist::DeviceType::bf16;
    case torch::kInt64:
      return dist::DeviceType::i64;
    default:
      break;
  }
  MRP_EXPECT(false, fmt::format("no collective on {}", c10::toString(tensor.scalar_type())));
  return {};
}
#endif

using Variables = torch::autograd::variable_list;

class ReduceFromRanks : public torch::autograd::Function<ReduceFromRanks> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x,
                               const TensorCollectives* ranks) {
    return ranks->all_reduce(x.clone());
  }
  static Variables backward(torch::autograd::AutogradContext*, Variables gradients) {
    return {gradients[0], {}};
  }
};

class CopyToRanks : public torch::autograd::Function<CopyToRanks> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                               const TensorCollectives* ranks) {
    context->saved_data["ranks"] = reinterpret_cast<std::int64_t>(ranks);
    return x.view_as(x);
  }
  static Variables backward(torch::autograd::AutogradContext* context, Variables gradients) {
    const auto* ranks =
        reinterpret_cast<const TensorCollectives*>(context->saved_data["ranks"].toInt());
    return {ranks->all_reduce(gradients[0].clone()), {}};
  }
};

}  // namespace

torch::Tensor reduce_from_ranks(const torch::Tensor& x, const TensorCollectives& ranks) {
  if (ranks.size() == 1) return x;
  return x.requires_grad() ? ReduceFromRanks::apply(x, &ranks) : ranks.all_reduce(x);
}

torch::Tensor copy_to_ranks(const torch::Tensor& x, const TensorCollectives& ranks) {
  return ranks.size() > 1 && x.requires_grad() ? CopyToRanks::apply(x, &ranks) : x;
}

torch::Device local_device(torch::DeviceType type, const dist::Communicator& world) {
  if (type == torch::kCPU) return torch::Device(torch::kCPU);
  const int index = world.split_node().rank();
  dist::agree(world, [&] {
#ifdef MRP_WITH_NCCL
    const int devices = static_cast<int>(torch::cuda::device_count());
    if (index >= devices) {
      throw dist::UsageError(fmt::format(
          "device cuda: a node has more ranks than GPUs ({}); start one rank per GPU", devices));
    }
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
#else
    throw dist::UsageError("device cuda: this build has no NCCL or CUDA; use device: cpu");
#endif
  });
  return torch::Device(type, static_cast<c10::DeviceIndex>(index));
}

TensorCollectives::TensorCollectives(const dist::Communicator& comm, torch::Device device)
    : comm_(&comm), device_(device) {
#ifdef MRP_WITH_NCCL
  if (device.is_cuda() && comm.size() > 1) nccl_.emplace(comm);
#else
  MRP_EXPECT(device.is_cpu(), "a CUDA tensor in a build without NCCL");
#endif
}

torch::Tensor TensorCollectives::all_reduce(torch::Tensor tensor, dist::ReduceOp op) const {
  if (size() == 1) return tensor;
  MRP_EXPECT(tensor.device() == device_, "the tensor lies on another device");
  tensor = tensor.contiguous();
  return device_.is_cpu() ? all_reduce_host(std::move(tensor), op)
                          : all_reduce_device(std::move(tensor), op);
}

torch::Tensor TensorCollectives::all_reduce_host(torch::Tensor tensor, dist::ReduceOp op) const {
  if (tensor.scalar_type() == torch::kBFloat16) {
    return all_reduce_host(tensor.to(torch::kFloat32), op).to(torch::kBFloat16);
  }
  if (tensor.scalar_type() == torch::kInt64) {
    reduce_span<std::int64_t>(tensor, *comm_, op);
  } else {
    reduce_span<float>(tensor, *comm_, op);
  }
  return tensor;
}

torch::Tensor TensorCollectives::all_reduce_device([[maybe_unused]] torch::Tensor tensor,
                                                   [[maybe_unused]] dist::ReduceOp op) const {
#ifdef MRP_WITH_NCCL
  const auto stream = c10::cuda::getCurrentCUDAStream(device_.index());
  nccl_->all_reduce(tensor.data_ptr(), tensor.numel(), device_type(tensor), op, stream.stream());
#endif
  return tensor;
}

}  // namespace mrp::shard
