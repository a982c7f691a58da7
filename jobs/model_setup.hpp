// From a job's settings to an opened checkpoint, its tokens, a parallel layout and model options.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/checkpoint.hpp"
#include "io/model_config.hpp"
#include "io/token_dataset.hpp"
#include "jobs/stage_graph.hpp"
#include "shard/model/causal_lm.hpp"
#include "shard/site.hpp"

namespace mrp::jobs {

struct OpenCheckpoint {
  io::Checkpoint checkpoint;
  io::ModelConfig config;
};

/// Collective over `world`.
OpenCheckpoint open_checkpoint(const std::filesystem::path& directory,
                               const dist::Communicator& world);

/// The sites of the job, in order of the forward pass. @throws UsageError for layers that the model
/// lacks.
std::vector<shard::Site> make_sites(const JobConfig& config, const io::ModelConfig& model);

/// What can be said of a job against its model before anything is computed. One rank calls it.
/// @throws InputError: config.json is broken or of an unsupported model, or a control has another
/// tokenizer or vocabulary; UsageError: sites or tensor size do not fit the model.
void check_model(const JobConfig& config);

/// Collective over the world. tokens.h5 of the job. @throws InputError if a token lies outside the
/// model's vocabulary.
io::TokenDataset read_tokens(const Job& job, const io::ModelConfig& model);

/// The samples of the job, the first ones if there are more than `most`. One rank may call it
/// alone.
/// @throws InputError for a missing or broken file, and as read_tokens.
io::TokenSet read_samples(const Job& job, const io::ModelConfig& model, std::int64_t most);

/// Ranks that share a copy of the model: parallel.tensor; when automatic, as many as share a node,
/// or more where the weights would take over half of their memory. Legal sizes only, and those that
/// divide `ranks`. Collective over the world.
int tensor_size(const Job& job, const io::ModelConfig& model, int ranks);

/// Collective over the world. The layout of this tensor size; it refers to the job's world.
dist::ParallelLayout make_layout(const Job& job, const io::ModelConfig& model);

/// The rows of a row-major matrix [width × k] of a site that this rank has, fp64: of a split site
/// its own, else all.
torch::Tensor local_rows(const std::vector<double>& matrix, std::int64_t width,
                         const shard::Site& site, const dist::ParallelLayout& layout);

/// Collective over the world. Device, type and threads of the job, for inference; all layers, with
/// head.
/// @throws UsageError if CUDA is asked for and there is none.
shard::ModelOptions model_options(const Job& job);

/// parallel.batch_tokens; when automatic, as many as keep a processor's caches or a GPU busy.
std::int64_t batch_tokens(const JobConfig& config, const io::ModelConfig& model,
                          torch::Device device);
std::int64_t batch_tokens(const JobConfig& config, const shard::CausalLM& model);

/// parallel.residency; when automatic, all layers, unless a rank's part of the weights would take
/// more than three quarters of its memory. Collective over the world.
shard::Residency residency(const Job& job, const io::ModelConfig& model, int tensor_size,
                           const shard::ModelOptions& options);

/// Whether training computes each layer again for its gradient: on a processor where what all
/// layers hold would take over a quarter of a rank's memory, on a GPU always. Collective over the
/// world.
bool recomputes_layers(const Job& job, const io::ModelConfig& model, int tensor_size,
                       const shard::ModelOptions& options);

/// model_options for training on this layout. Collective over the world.
shard::ModelOptions training_options(const Job& job, const io::ModelConfig& model,
                                     const dist::ParallelLayout& layout);

/// Memory that one rank may use: an even share of its node's, or of the job's limit there; the
/// least of all ranks. Collective over `world`.
std::uint64_t memory_share(const dist::Communicator& world);

}  // namespace mrp::jobs
