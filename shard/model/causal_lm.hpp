// A tensor-parallel causal language model read straight from a checkpoint.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "dist/partition.hpp"
#include "io/checkpoint.hpp"
#include "io/model_config.hpp"
#include "shard/model/layers.hpp"
#include "shard/model/parameter.hpp"
#include "shard/model/site_hook.hpp"
#include "shard/model/tensor_collectives.hpp"
#include "shard/site.hpp"

namespace mrp::shard {

class KvCache;
struct PackedBatch;

struct ModelOptions {
  torch::Device device = torch::kCPU;         ///< CUDA: from local_device
  torch::ScalarType dtype = torch::kFloat32;  ///< of the products; norms and losses are fp32
  std::int64_t layers = -1;                   ///< build only the first so many; −1: all
  bool head = true;                           ///< read final norm and lm_head
  /// With `layer`, only embed and advance can be called, a group of layers at a time.
  Residency residency = Residency::full;
  /// Of a pass recorded for gradients, keep the input of each layer only and compute the rest
  /// again.
  bool recompute_layers = false;
  /// Large weights lie as products read them fastest, and there are no parameters().
  bool inference = false;
  int threads = 1;
};

/// bf16 on CUDA and on processors that multiply it faster than fp32, else fp32.
torch::ScalarType default_compute_dtype(torch::Device device);

/// The tensor sizes that divide the model, ascending.
std::vector<int> legal_tensor_sizes(const io::ModelConfig& config);

/// @throws UsageError that names the legal sizes unless the model can be split over `tensor_size`
/// ranks: heads, intermediate_size and kv_heads must divide; or tensor_size is a multiple of
/// kv_heads.
void check_tensor_size(const io::ModelConfig& config, int tensor_size);

/// @throws InputError if sequences of `length` tokens are longer than the model's positions or its
/// sliding window, whose mask is not applied.
void check_length(const io::ModelConfig& config, std::int64_t length);

/// A forward pass is recorded for gradients where grad mode is on and a parameter requires one.
class CausalLM {
 public:
  /// Collective over layout.world(). Each rank reads only its slices (pread). @throws UsageError
  /// when the tensor size does not divide heads or widths (names the legal counts); InputError for
  /// missing tensors, wrong shapes, NaN or Inf (names the tensor), unsupported model_type (lists
  /// the supported).
  /// `checkpoint` must outlive a model that is read layer by layer.
  CausalLM(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
           const dist::ParallelLayout& layout, const ModelOptions& options);
  ~CausalLM();

  const io::ModelConfig& config() const;
  const ModelOptions& options() const;
  /// Number of layers that are built.
  std::int64_t layers() const;
  /// Over layout.tensor().
  const TensorCollectives& collectives() const;
  /// Every tensor of the layers that were built, in order of the forward pass. Tied embeddings are
  /// one parameter. @pre not options().inference
  std::vector<Parameter> parameters();

  /// Collective over layout.tensor(). tokens i64 [batch × length], right-padded (causal attention
  /// keeps padding out of real positions). Returns the residual stream after the last built layer
  /// [batch × length × hidden].
  torch::Tensor hidden_states(const torch::Tensor& tokens, const SiteHook& hook = {}) const;

  /// Collective over layout.tensor(). The same for the next tokens [batch × length] of sequences
  /// whose earlier ones are in `cache`, which they join; the first are padded on the left. No
  /// sequence may grow beyond what check_length accepts.
  torch::Tensor hidden_states(const torch::Tensor& tokens, KvCache& cache) const;

  /// Collective over layout.tensor(). The same for a packed batch: [rows × length × hidden].
  torch::Tensor hidden_states(const PackedBatch& batch) const;

  /// Collective over layout.tensor(). As hidden_states, but ends at the site `last`, for what the
  /// hook sees.
  void visit_sites(const torch::Tensor& tokens, const SiteHook& hook, const Site& last) const;

  /// The ranges of layers that are in memory together, in order of the forward pass.
  std::vector<dist::Range> layer_groups() const;
  /// Not collective. Brings the next of these groups into memory, which is done where there is only
  /// one. @throws as the constructor.
  void load(dist::Range group);
  /// Collective over layout.tensor(). The residual stream before the first layer. Once layers have
  /// been loaded one by one, the embedding is gone.
  torch::Tensor embed(const torch::Tensor& tokens) const;
  /// Collective over layout.tensor(). Takes the stream through a group that is in memory, up to the
  /// site `last`, for what the hook sees.
  torch::Tensor advance(torch::Tensor stream, dist::Range group, const SiteHook& hook,
                        const Site& last) const;

  /// Final norm and head of `rows` [n × hidden]: this rank's slice of the vocabulary, fp32
  /// [n × slice]. Not collective. @pre options().head
  torch::Tensor local_logits(const torch::Tensor& rows) const;
  /// This rank's slice of the vocabulary.
  dist::Range vocab_range() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mrp::shard
