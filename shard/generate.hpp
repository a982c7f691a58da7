// Continuations of prompts by a model: its first choices, or samples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

struct GenerateOptions {
  std::int64_t max_tokens = 128;     ///< of a continuation
  double temperature = 0;            ///< 0: always the likeliest token; else that of the softmax
  std::uint64_t seed = 0;            ///< of the samples
  std::int32_t end_token = -1;       ///< ends a continuation; −1: none does
  std::int64_t batch_tokens = 4096;  ///< of one pass, padding included
};

/// Collective over layout.world(). Continues each prompt, which has at least one token; the results
/// hold neither prompt nor end token and are complete on every rank. Data ranks share the prompts.
/// A continuation also ends where the positions of the model do. Neither the number of ranks nor
/// batch_tokens changes the result, up to rounding: the randomness of a token comes from the seed,
/// the index of the prompt and the position alone. `what` names the prompts in progress and errors.
/// @throws InputError for a prompt that is empty, too long or not of the model's vocabulary;
/// NumericalError if the logits are NaN.
std::vector<std::vector<std::int32_t>> generate(
    const CausalLM& model, const dist::ParallelLayout& layout,
    const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options,
    const std::string& what);

}  // namespace mrp::shard
