#include "shard/model/rotary.hpp"

#include <numbers>

namespace mrp::shard {
namespace {

/// Llama 3.1's scaling: frequencies whose wavelength exceeds the original context / low_freq_factor
/// are divided by `factor`, those below the original context / high_freq_factor stay, those between
/// are blended linearly in 1 / wavelength.
torch::Tensor scale_llama3(const torch::Tensor& frequencies, const io::RopeConfig& rope) {
  const auto context = static_cast<double>(rope.original_max_position);
  const torch::Tensor turns = frequencies * (context / (2.0 * std::numbers::pi));
  const torch::Tensor keep =
      ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor))
          .clamp(0.0, 1.0);
  return frequencies * (keep + (1.0 - keep) / rope.factor);
}

torch::Tensor rotate_half(const torch::Tensor& states) {
  const auto halves = states.chunk(2, -1);
  return torch::cat({-halves[1], halves[0]}, -1);
}

}  // namespace

torch::Tensor RotaryTable::rotate(const torch::Tensor& states) const {
  return states * cos + rotate_half(states) * sin;
}

Rotary::Rotary(const io::ModelConfig& config, torch::Device device) {
  const auto dim = static_cast<double>(config.head_dim);
  const torch::Tensor exponents = torch::arange(0, config.head_dim, 2, torch::kFloat32) / dim;
  frequencies_ = 1.0 / torch::pow(config.rope.theta, exponents);
  if (config.rope.type == "linear") frequencies_ = frequencies_ / config.rope.factor;
  if (config.rope.type == "llama3") frequencies_ = scale_llama3(frequencies_, config.rope);
  frequencies_ = frequencies_.to(device);
}

RotaryTable Rotary::table(const torch::Tensor& positions, torch::ScalarType dtype) const {
  const torch::Tensor half = positions.to(torch::kFloat32).unsqueeze(-1) * frequencies_;
  const torch::Tensor angles = torch::cat({half, half}, -1);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

}  // namespace mrp::shard
