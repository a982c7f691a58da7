#include "shard/model/packed_weight.hpp"

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {
namespace {

/// A packed weight makes oneDNN take a few ms longer to write code for a new number of rows:
/// smaller ones gain nothing.
constexpr std::int64_t kFewestElements = std::int64_t{1} << 17;

/// Rows of x that oneDNN lays a weight out for; it serves for all.
constexpr int kRows = 1024;

using Pack = torch::Tensor(const torch::Tensor&, std::optional<c10::SymInt>);
using Multiply = torch::Tensor(const torch::Tensor&, const torch::Tensor&,
                               const std::optional<torch::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>,
                               std::optional<std::string_view>);

/// An operator of LibTorch that its headers do not declare; none in builds without oneDNN.
template <class Signature>
std::optional<c10::TypedOperatorHandle<Signature>> find_operator(const char* name) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found) return std::nullopt;
  return found->typed<Signature>();
}

const auto& packing() {
  static const auto found = find_operator<Pack>("mkldnn::_reorder_linear_weight");
  return found;
}

const auto& product() {
  static const auto found = find_operator<Multiply>("mkldnn::_linear_pointwise");
  return found;
}

}  // namespace

torch::Tensor pack_weight(const torch::Tensor& weight) {
  const bool pays = weight.is_cpu() && weight.scalar_type() == torch::kBFloat16 &&
                    weight.numel() >= kFewestElements &&
                    default_compute_dtype(torch::kCPU) == torch::kBFloat16;
  return pays && packing() && product() ? packing()->call(weight, c10::SymInt(kRows)) : weight;
}

torch::Tensor apply_weight(const torch::Tensor& x, const torch::Tensor& weight,
                           const torch::Tensor& bias) {
  if (!weight.is_mkldnn()) return torch::linear(x, weight, bias);
  const auto with = bias.defined() ? std::optional(bias) : std::nullopt;
  const c10::List<std::optional<at::Scalar>> nothing;
  return product()->call(x, weight, with, /*attr=*/"none", nothing, /*algorithm=*/"");
}

}  // namespace mrp::shard
