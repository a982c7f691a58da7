#include "shard/batches.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "dist/error.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

std::int64_t BatchPlan::rounds() const {
  std::size_t most = 0;
  for (const auto& of_rank : batches) most = std::max(most, of_rank.size());
  return static_cast<std::int64_t>(most);
}

dist::Range BatchPlan::batch(int data_rank, std::int64_t round) const {
  const auto& of_rank = batches[static_cast<std::size_t>(data_rank)];
  const auto index = static_cast<std::size_t>(round);
  return index < of_rank.size() ? of_rank[index] : dist::Range{};
}

std::span<const std::int64_t> BatchPlan::members(dist::Range batch) const {
  return std::span(order).subspan(static_cast<std::size_t>(batch.begin),
                                  static_cast<std::size_t>(batch.size()));
}

std::vector<std::int64_t> all_items(std::int64_t count) {
  std::vector<std::int64_t> items(static_cast<std::size_t>(count));
  std::iota(items.begin(), items.end(), 0);
  return items;
}

BatchPlan plan_batches(const io::Sequences& sequences, std::vector<std::int64_t> chosen,
                       int data_ranks, std::int64_t batch_tokens) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < sequences.count(); ++i) lengths.push_back(sequences.length(i));
  return plan_batches(lengths, std::move(chosen), data_ranks, batch_tokens);
}

BatchPlan plan_batches(std::span<const std::int64_t> lengths, std::vector<std::int64_t> chosen,
                       int data_ranks, std::int64_t batch_tokens) {
  MRP_EXPECT(batch_tokens > 0);
  const auto length = [&](std::int64_t index) { return lengths[static_cast<std::size_t>(index)]; };
  std::ranges::sort(chosen, {},
                    [&](std::int64_t index) { return std::tuple(length(index), index); });
  std::vector<std::int64_t> ascending;
  for (const std::int64_t index : chosen) ascending.push_back(length(index));
  BatchPlan plan{std::move(chosen), {}};
  for (const dist::Range& part : dist::balance(ascending, data_ranks)) {
    auto& batches = plan.batches.emplace_back();
    for (std::int64_t begin = part.begin; begin < part.end;) {
      // Lengths ascend, so the last sequence sets the padded length.
      std::int64_t end = begin + 1;
      while (end < part.end &&
             (end + 1 - begin) * ascending[static_cast<std::size_t>(end)] <= batch_tokens) {
        ++end;
      }
      batches.push_back({begin, end});
      begin = end;
    }
  }
  return plan;
}

std::int64_t round_tokens(const BatchPlan& plan, const io::Sequences& sequences,
                          std::int64_t round) {
  std::int64_t tokens = 0;
  for (std::size_t rank = 0; rank < plan.batches.size(); ++rank) {
    for (const std::int64_t index : plan.members(plan.batch(static_cast<int>(rank), round))) {
      tokens += sequences.length(index);
    }
  }
  return tokens;
}

torch::Tensor pad(std::span<const std::span<const std::int32_t>> sequences) {
  std::size_t longest = 0;
  for (const auto& tokens : sequences) longest = std::max(longest, tokens.size());
  torch::Tensor padded =
      torch::zeros({std::ssize(sequences), static_cast<std::int64_t>(longest)}, torch::kInt64);
  auto* row = padded.data_ptr<std::int64_t>();
  for (const auto& tokens : sequences) {
    std::ranges::copy(tokens, row);
    row += longest;
  }
  return padded;
}

torch::Tensor pad(const io::Sequences& sequences, std::span<const std::int64_t> members) {
  std::vector<std::span<const std::int32_t>> tokens;
  for (const std::int64_t index : members) tokens.push_back(sequences.tokens(index));
  return pad(tokens);
}

void check_sequences(const io::ModelConfig& config, const io::Sequences& sequences,
                     const std::string& what) {
  for (std::int64_t index = 0; index < sequences.count(); ++index) {
    const auto tokens = sequences.tokens(index);
    for (const std::int32_t token : tokens) {
      if (token >= 0 && token < config.vocab_size) continue;
      throw dist::InputError(fmt::format(
          "{}, sequence {}: token {} is outside the model's vocabulary of {}; prepare with the "
          "model's own tokenizer",
          what, index, token, config.vocab_size));
    }
    try {
      check_length(config, sequences.length(index));
    } catch (const dist::InputError& error) {
      throw dist::InputError(fmt::format("{}, sequence {}: {}", what, index, error.what()));
    }
  }
}

}  // namespace mrp::shard
