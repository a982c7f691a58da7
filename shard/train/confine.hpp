// Which directions a trained change may use: those that the retain states leave free.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>

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

/// S of the subspace edit, soft form: with the moments scaled to mean eigenvalue 1 and C = V Λ Vᵀ,
/// S = V diag(√(ε / (λ + ε))) Vᵀ, ε = `softness`; the `directions` largest eigenvalues count, the
/// others are taken as free (0: all count). Not collective.
Confinement soft_confinement(const torch::Tensor& moments, double softness,
                             std::int64_t directions);

/// S of the subspace edit, low form: an orthonormal basis, fp32 [width × k], of the k generalised
/// eigenvectors of largest eigenvalue of forget v = λ (retain + ridge I) v, both moments scaled to
/// mean eigenvalue 1 and ridge = 1e-2: what tells forget from retain best. Not collective.
torch::Tensor low_subspace(const torch::Tensor& forget, const torch::Tensor& retain,
                           std::int64_t k);

}  // namespace mrp::shard
