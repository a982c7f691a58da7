#include "shard/train/saved_state.hpp"

#include <fmt/format.h>
#include <torch/utils.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/safetensors.hpp"

namespace mrp::shard {
namespace {

/// The tensors of a file in order of their names, the last being the number of steps; empty if the
/// file is missing, broken or of other shapes than `like`.
std::vector<torch::Tensor> read(const std::filesystem::path& path,
                                const std::vector<torch::Tensor>& like) {
  if (!std::filesystem::exists(path)) return {};
  try {
    const io::SafetensorsFile file(path);
    std::map<std::string, torch::Tensor> found;
    for (const io::TensorInfo& info : file.tensors()) {
      if (info.dtype != io::DType::f32) return {};
      torch::Tensor values = torch::empty({info.elements()}, torch::kFloat32);
      file.read(info.begin, std::span(static_cast<std::byte*>(values.data_ptr()), info.bytes()));
      found[info.name] = values;
    }
    std::vector<torch::Tensor> all;
    for (std::size_t i = 0; i <= like.size(); ++i) {
      const auto entry = found.find(std::to_string(i));
      const std::int64_t count = i < like.size() ? like[i].numel() : 1;
      if (entry == found.end() || entry->second.numel() != count) return {};
      if (!torch::isfinite(entry->second).all().item<bool>()) return {};
      all.push_back(entry->second);
    }
    return all;
  } catch (const dist::InputError&) {
    return {};
  }
}

}  // namespace

std::filesystem::path SavedState::file(int slot) const {
  return directory_ / fmt::format("rank-{}.{}.safetensors", world_->rank(), slot);
}

void SavedState::save(std::vector<torch::Tensor> tensors, std::int64_t steps) {
  dist::agree(*world_, [&] {
    std::filesystem::create_directories(directory_);
    tensors.push_back(torch::tensor(static_cast<float>(steps)));
    std::vector<io::TensorData> data;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      tensors[i] = tensors[i].cpu().contiguous();
      data.push_back({std::to_string(i),
                      io::DType::f32,
                      {tensors[i].numel()},
                      {static_cast<const std::byte*>(tensors[i].const_data_ptr()),
                       static_cast<std::size_t>(tensors[i].nbytes())}});
    }
    io::write_safetensors(file(slot_), data);
  });
  slot_ = 1 - slot_;
}

std::int64_t SavedState::load(const std::vector<torch::Tensor>& tensors) const {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> newest;
  std::int64_t newest_steps = 0;
  for (const int slot : {0, 1}) {
    const auto found = dist::agree(*world_, [&] { return read(file(slot), tensors); });
    const std::int64_t steps = found.empty() ? 0 : std::llround(found.back().item<double>());
    const std::int64_t least = world_->all_reduce(steps, dist::ReduceOp::min);
    if (least != world_->all_reduce(steps, dist::ReduceOp::max) || steps <= newest_steps) continue;
    newest = found;
    newest_steps = steps;
  }
  for (std::size_t i = 0; newest_steps > 0 && i < tensors.size(); ++i) {
    torch::Tensor target = tensors[i];
    target.copy_(newest[i].view(target.sizes()));
  }
  return newest_steps;
}

void SavedState::remove() const {
  world_->barrier();
  dist::agree(*world_, [&] {
    if (world_->is_root()) std::filesystem::remove_all(directory_);
  });
}

}  // namespace mrp::shard
