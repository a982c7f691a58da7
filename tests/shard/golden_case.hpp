// A random tiny model with what transformers computes on it (golden.py).
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/parallel_layout.hpp"
#include "io/checkpoint.hpp"
#include "io/model_config.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::test {

class GoldenCase {
 public:
  explicit GoldenCase(const std::string& name);

  std::filesystem::path directory() const { return directory_; }
  const io::ModelConfig& config() const { return config_; }
  const io::Checkpoint& checkpoint() const { return checkpoint_; }

  /// An array of golden.safetensors, as it is stored.
  torch::Tensor expected(const std::string& name) const;
  /// Items, letters and options.
  io::TokenSet token_set() const;
  /// Collective over `world`. check(model, layout) for every layout data × tensor of its ranks.
  void on_all_layouts(
      const dist::Communicator& world, const shard::ModelOptions& options,
      const std::function<void(shard::CausalLM&, const dist::ParallelLayout&)>& check) const;

 private:
  std::filesystem::path directory_;
  io::Checkpoint checkpoint_;
  io::ModelConfig config_;
  io::SafetensorsFile golden_;
};

/// The divisors of `ranks`: the tensor sizes of all layouts data × tensor.
std::vector<int> tensor_sizes(int ranks);

/// max |a − b| / max |b|.
double relative_difference(const torch::Tensor& a, const torch::Tensor& b);

/// Right-padded i64 [n × longest] of all sequences, in their order.
torch::Tensor padded_tokens(const io::Sequences& sequences);
/// The real positions of [n × longest × width], sequence after sequence: [T × width].
torch::Tensor unpadded(const torch::Tensor& states, const io::Sequences& sequences);

/// Collective over the tensor ranks: local slices [T × slice], which begin at `begin`, as the whole
/// [T × width] on every rank.
torch::Tensor assemble(const torch::Tensor& local, std::int64_t begin, std::int64_t width,
                       const dist::Communicator& tensor);

}  // namespace mrp::test
