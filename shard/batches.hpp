// Which sequences run together, and on which data rank.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dist/partition.hpp"
#include "io/model_config.hpp"
#include "io/token_dataset.hpp"

namespace mrp::shard {

/// The same on every rank.
struct BatchPlan {
  std::vector<std::int64_t>
      order;  ///< sequence indices by (length, index), whatever the rank count
  std::vector<std::vector<dist::Range>> batches;  ///< per data rank: contiguous ranges of `order`

  /// Batches of the data rank that has the most.
  std::int64_t rounds() const;
  /// The batch of a data rank; empty in rounds that it sits out.
  dist::Range batch(int data_rank, std::int64_t round) const;
  std::span<const std::int64_t> members(dist::Range batch) const;
};

/// 0 … count − 1.
std::vector<std::int64_t> all_items(std::int64_t count);

/// Plans the `chosen` sequences: data ranks take contiguous ranges with about equal tokens; a batch
/// has at most `batch_tokens` tokens, padding included, and at least one sequence.
BatchPlan plan_batches(const io::Sequences& sequences, std::vector<std::int64_t> chosen,
                       int data_ranks, std::int64_t batch_tokens);

/// The same for sequences of these `lengths`.
BatchPlan plan_batches(std::span<const std::int64_t> lengths, std::vector<std::int64_t> chosen,
                       int data_ranks, std::int64_t batch_tokens);

/// Tokens of the batches of all data ranks in a round, without padding.
std::int64_t round_tokens(const BatchPlan& plan, const io::Sequences& sequences,
                          std::int64_t round);

/// i64 [sequences × longest], padded on the right with token 0.
torch::Tensor pad(std::span<const std::span<const std::int32_t>> sequences);
torch::Tensor pad(const io::Sequences& sequences, std::span<const std::int64_t> members);

/// @throws InputError naming `what` and the sequence: too long for the model (check_length) or a
/// token outside its vocabulary.
void check_sequences(const io::ModelConfig& config, const io::Sequences& sequences,
                     const std::string& what);

}  // namespace mrp::shard
