// Which directions a trained change may use: those that the retain states leave free, and on which
// the predictions hang little.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"
#include "shard/train/trainable.hpp"

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

/// How many eigenvalues count for S or T of this width: all up to 2048, of wider ones an eighth;
/// what the others do to S is small.
std::int64_t confined_directions(std::int64_t width);

/// S of the subspace edit, soft form: with the moments scaled to mean eigenvalue 1 and C = V Λ Vᵀ,
/// S = V diag(√(ε / (λ + ε))) Vᵀ, ε = `softness`; of the largest eigenvalues, `confined_directions`
/// many; the others are taken as free. T likewise. Not collective.
Confinement soft_confinement(const torch::Tensor& moments, double softness);

/// S of the subspace edit, low form: an orthonormal basis, fp32 [width × k], of the k generalised
/// eigenvectors of largest eigenvalue of forget v = λ (retain + ridge I) v, both moments scaled to
/// mean eigenvalue 1 and ridge = 1e-2: what tells forget from retain best. Not collective.
torch::Tensor low_subspace(const torch::Tensor& forget, const torch::Tensor& retain,
                           std::int64_t k);

}  // namespace mrp::shard
