// A tensor-parallel causal language model read straight from a checkpoint.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>

#include "dist/parallel_layout.hpp"
#include "io/checkpoint.hpp"
#include "io/model_config.hpp"
#include "shard/site.hpp"

namespace mrp::shard {

struct ModelOptions {
  torch::Device device = torch::kCPU;
  torch::ScalarType dtype = torch::kFloat32;  ///< of the products; norms, softmax and losses are fp32
  std::int64_t layers = -1;                   ///< build only the first so many; −1: all
  bool head = true;                           ///< read final norm and lm_head
  int threads = 1;
};

/// Called in forward for every site of the model. `states` is [batch × length × local width]: this tensor
/// rank's slice at split sites, complete otherwise. Whoever returns a tensor replaces the states.
using SiteHook = std::function<std::optional<torch::Tensor>(const Site&, const torch::Tensor& states)>;

class CausalLM {
 public:
  /// Collective over layout.tensor(). Each rank reads only its slices (pread). @throws UsageError when the
  /// tensor size does not divide heads or widths (names the legal counts); InputError for missing
  /// tensors, wrong shapes, NaN or Inf (names the tensor), unsupported model_type (lists the supported).
  CausalLM(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
           const dist::ParallelLayout& layout, const ModelOptions& options);
  ~CausalLM();

  const io::ModelConfig& config() const;
  const ModelOptions& options() const;

  /// Collective over layout.tensor(). tokens i64 [batch × length], right-padded (causal attention keeps padding out of
  /// real positions). Returns the residual stream after the last built layer [batch × length × hidden].
  torch::Tensor hidden_states(const torch::Tensor& tokens, const SiteHook& hook = {}) const;

  /// Collective over layout.tensor(). Final norm and head of `rows` [n × hidden]: this rank's slice of the
  /// vocabulary, fp32 [n × vocab / tensor].
  torch::Tensor local_logits(const torch::Tensor& rows) const;
  /// First vocabulary entry of this rank's slice.
  std::int64_t vocab_begin() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mrp::shard
