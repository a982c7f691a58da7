// Second moments of what linear layers read, and of the gradients of their weights: they tell which
// directions a trained change may use.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

/// Uncentred second moments XᵀX / rows of what each linear layer reads, at all positions of all
/// items of `set`: fp32 [local width × local width]; of a split site, of this rank's slice.
/// Collective over the world; equal on all data ranks.
std::map<Site, torch::Tensor> input_moments(CausalLM& model, const dist::ParallelLayout& layout,
                                            const io::TokenSet& set, std::int64_t batch_tokens);

/// Second moments Σ G Gᵀ of the gradients G of log p with respect to each linear weight that reads
/// a site of `modules` (empty: all), at targets of `set`: by name of the weight, one fp32 [rows ×
/// rows] for each of its blocks of rows. Of samples of the model itself, this is the factor of the
/// outputs in its Fisher matrix (K-FAC, arXiv 1503.05671; taken from whole gradients as in Shampoo,
/// arXiv 1802.09568). Takes the first 2048 sequences, up to 16 and `batch_tokens` tokens at a time.
/// Collective over the world; equal on all data ranks.
std::map<std::string, std::vector<torch::Tensor>> gradient_moments(
    CausalLM& model, const dist::ParallelLayout& layout, const io::TokenSet& set,
    const std::vector<SiteModule>& modules, std::int64_t batch_tokens);

}  // namespace mrp::shard
