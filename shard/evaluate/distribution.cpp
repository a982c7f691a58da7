#include "shard/evaluate/distribution.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dist/error.hpp"
#include "shard/model/vocab_parallel.hpp"

namespace mrp::shard {
namespace {

constexpr double kLeastVariance = 1e-6;

/// Calls `of_chunk(begin, count)`, which returns [k × count], for chunks of `n` rows: [k × n] on
/// the host. The same chunks on all tensor ranks.
template <class Function>
torch::Tensor in_chunks(const CausalLM& model, std::int64_t n, std::int64_t k, Function of_chunk) {
  const std::int64_t step = rows_at_a_time(model);
  std::vector<torch::Tensor> parts = {torch::empty({k, 0}, torch::kFloat32)};
  for (std::int64_t begin = 0; begin < n; begin += step) {
    parts.push_back(of_chunk(begin, std::min(step, n - begin)).cpu());
  }
  return torch::cat(parts, 1);
}

}  // namespace

LogProbabilityMoments log_probability_moments(const CausalLM& model, const torch::Tensor& rows) {
  const TensorCollectives& ranks = model.collectives();
  const torch::Tensor moments =
      in_chunks(model, rows.size(0), 2, [&](std::int64_t begin, std::int64_t count) {
        const torch::Tensor logits = model.local_logits(rows.narrow(0, begin, count));
        const torch::Tensor max = ranks.all_reduce(logits.amax(1), dist::ReduceOp::max);
        const torch::Tensor shifted = logits - max.unsqueeze(1);
        const torch::Tensor weight = shifted.exp();
        const torch::Tensor sums = ranks.all_reduce(torch::stack(
            {weight.sum(1), (weight * shifted).sum(1), (weight * shifted.square()).sum(1)}));
        const torch::Tensor mean = sums[1] / sums[0];
        const torch::Tensor variance = sums[2] / sums[0] - mean.square();
        return torch::stack({mean - sums[0].log(), variance.clamp_min(kLeastVariance).sqrt()});
      });
  return {moments[0], moments[1]};
}

torch::Tensor kl_divergence(const CausalLM& reference, const torch::Tensor& reference_rows,
                            const CausalLM& model, const torch::Tensor& rows) {
  MRP_EXPECT(reference.config().vocab_size == model.config().vocab_size &&
                 reference.collectives().size() == model.collectives().size(),
             "two models that share no slices of the vocabulary");
  return in_chunks(model, rows.size(0), 1, [&](std::int64_t begin, std::int64_t count) {
    return kl_divergence(model, reference.local_logits(reference_rows.narrow(0, begin, count)),
                         model.local_logits(rows.narrow(0, begin, count)))
        .clamp_min(0)  // below 0 by rounding only
        .unsqueeze(0);
  })[0];
}

}  // namespace mrp::shard
