#include "shard/model/weights.hpp"

#include <cmath>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

torch::ScalarType stored_type(const io::TensorInfo& info) {
  switch (info.dtype) {
    case io::DType::bf16:
      return torch::kBFloat16;
    case io::DType::f16:
      return torch::kHalf;
    case io::DType::f32:
      return torch::kFloat32;
    default:
      throw dist::InputError(fmt::format("tensor {} has type {}; weights may be BF16, F16 or F32",
                                         info.name, io::dtype_name(info.dtype)));
  }
}

/// True if no entry is NaN or infinite. The extremes carry a NaN through, at the cost of one pass.
bool all_finite(const torch::Tensor& values) {
  if (values.numel() == 0) return true;
  const auto [low, high] = torch::aminmax(values);
  return std::isfinite(low.item<float>()) && std::isfinite(high.item<float>());
}

}  // namespace

WeightReader::WeightReader(const io::Checkpoint& checkpoint, torch::Device device,
                           torch::ScalarType dtype)
    : checkpoint_(&checkpoint), device_(device), dtype_(dtype) {}

torch::Tensor WeightReader::matrix(const WeightBlock& block) const {
  check_shape(block.tensor, {block.height, block.width});
  return convert(block.tensor, checkpoint_->read_block(block.tensor, block.rows, block.columns),
                 {block.rows.size(), block.columns.size()});
}

torch::Tensor WeightReader::vector(const std::string& tensor, std::int64_t length,
                                   dist::Range range) const {
  check_shape(tensor, {length});
  return convert(tensor, checkpoint_->read(tensor), {length})
      .slice(0, range.begin, range.end)
      .contiguous();
}

void WeightReader::check_shape(const std::string& tensor,
                               const std::vector<std::int64_t>& shape) const {
  const io::TensorInfo& info = checkpoint_->info(tensor);
  if (info.shape != shape) {
    throw dist::InputError(
        fmt::format("tensor {} in {} has shape [{}], but config.json asks for [{}]", tensor,
                    checkpoint_->file_of(tensor).path().string(), fmt::join(info.shape, ", "),
                    fmt::join(shape, ", ")));
  }
}

torch::Tensor WeightReader::convert(const std::string& tensor, std::vector<std::byte> bytes,
                                    const std::vector<std::int64_t>& shape) const {
  const torch::ScalarType type = stored_type(checkpoint_->info(tensor));
  // The tensor owns the bytes that were read; a copy is made only where the type or device changes.
  auto owner = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  const torch::Tensor stored = torch::from_blob(
      owner->data(), shape, [owner](void*) {}, torch::TensorOptions().dtype(type));
  const torch::Tensor converted = stored.to(dtype_);
  if (!all_finite(converted)) {
    throw dist::InputError(
        fmt::format("tensor {} in {} holds NaN or Inf; the checkpoint is damaged", tensor,
                    checkpoint_->file_of(tensor).path().string()));
  }
  return converted.to(device_);
}

}  // namespace mrp::shard
