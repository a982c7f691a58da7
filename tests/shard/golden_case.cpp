#include "shard/golden_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>

#include "dist/error.hpp"
#include "shard/batches.hpp"
#include "shard/model/tensor_collectives.hpp"

namespace mrp::test {
namespace {

torch::ScalarType torch_type(io::DType dtype) {
  switch (dtype) {
    case io::DType::f32:
      return torch::kFloat32;
    case io::DType::f64:
      return torch::kFloat64;
    case io::DType::i64:
      return torch::kInt64;
    case io::DType::u8:
      return torch::kUInt8;
    default:
      break;
  }
  MRP_EXPECT(false, "a type that golden.py does not write");
  return {};
}

template <class To>
std::vector<To> as_vector(const torch::Tensor& values) {
  const torch::Tensor wide = values.to(torch::kInt64).contiguous();
  std::vector<To> result;
  for (const std::int64_t value :
       std::span(wide.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(wide.numel()))) {
    result.push_back(static_cast<To>(value));
  }
  return result;
}

}  // namespace

GoldenCase::GoldenCase(const std::string& name)
    : directory_(std::filesystem::path(MRP_TEST_DATA) / "shard" / name),
      checkpoint_(directory_),
      config_(io::ModelConfig::read(directory_)),
      golden_(directory_ / "expected" / "golden.safetensors") {}

torch::Tensor GoldenCase::expected(const std::string& name) const {
  const auto& tensors = golden_.tensors();
  const auto found = std::ranges::find(tensors, name, &io::TensorInfo::name);
  MRP_EXPECT(found != tensors.end(), name);
  torch::Tensor value = torch::empty(found->shape, torch_type(found->dtype));
  golden_.read(found->begin, {static_cast<std::byte*>(value.data_ptr()), value.nbytes()});
  return value;
}

io::TokenSet GoldenCase::token_set() const {
  const auto sequences = [&](const std::string& prefix) {
    return io::Sequences{as_vector<std::int32_t>(expected(prefix + ".token_ids")),
                         as_vector<std::int64_t>(expected(prefix + ".offsets")),
                         as_vector<std::uint8_t>(expected(prefix + ".target_mask"))};
  };
  io::TokenSet set;
  set.name = "forget";
  set.items = sequences("items");
  for (std::int64_t i = 0; i < set.items.count(); ++i)
    set.ids.push_back("item-" + std::to_string(i));
  for (std::int64_t i = 0; i < set.items.count(); ++i) set.zlib_bytes.push_back(20 + i);
  set.answer_index = as_vector<std::int32_t>(expected("answer_index"));
  set.letter_position = as_vector<std::int64_t>(expected("letter_position"));
  set.letter_token_ids = as_vector<std::int32_t>(expected("letter_token_ids"));
  set.letter_offsets = as_vector<std::int64_t>(expected("letter_offsets"));
  const torch::Tensor labels = expected("options.labels");
  set.options = {sequences("options"), as_vector<std::int64_t>(labels.select(1, 0)),
                 as_vector<std::int32_t>(labels.select(1, 1)),
                 as_vector<io::OptionForm>(labels.select(1, 2))};
  return set;
}

void GoldenCase::on_all_layouts(
    const dist::Communicator& world, const shard::ModelOptions& options,
    const std::function<void(shard::CausalLM&, const dist::ParallelLayout&)>& check) const {
  for (const int size : tensor_sizes(world.size())) {
    SCOPED_TRACE("tensor size " + std::to_string(size));
    const dist::ParallelLayout layout(world, size);
    shard::CausalLM model(checkpoint_, config_, layout, options);
    check(model, layout);
  }
}

std::vector<int> tensor_sizes(int ranks) {
  std::vector<int> sizes;
  for (int size = 1; size <= ranks; ++size) {
    if (ranks % size == 0) sizes.push_back(size);
  }
  return sizes;
}

double relative_difference(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  const torch::Tensor wide = b.to(torch::kFloat64);
  const double worst = (a.to(torch::kFloat64) - wide).abs().max().item<double>();
  return worst / wide.abs().max().item<double>();
}

torch::Tensor padded_tokens(const io::Sequences& sequences) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < sequences.count(); ++i) all.push_back(i);
  return shard::pad(sequences, all);
}

torch::Tensor unpadded(const torch::Tensor& states, const io::Sequences& sequences) {
  std::vector<torch::Tensor> parts;
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    parts.push_back(states[i].narrow(0, 0, sequences.length(i)));
  }
  return torch::cat(parts);
}

torch::Tensor assemble(const torch::Tensor& local, std::int64_t begin, std::int64_t width,
                       const dist::Communicator& tensor) {
  torch::Tensor whole = torch::zeros({local.size(0), width}, torch::kFloat32);
  whole.narrow(1, begin, local.size(1)).copy_(local);
  return shard::TensorCollectives(tensor, torch::kCPU).all_reduce(whole);
}

}  // namespace mrp::test
