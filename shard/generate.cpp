#include "shard/generate.hpp"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "shard/batches.hpp"
#include "shard/model/kv_cache.hpp"
#include "shard/model/vocab_parallel.hpp"

namespace mrp::shard {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Tokens that a cache may hold for each token of a pass: a token of the cache takes about an
/// eighth of the memory of one that runs.
constexpr std::int64_t kCachedTokens = 8;
/// A sequence of the batch that has ended and only takes its place.
constexpr std::int64_t kEnded = -1;

constexpr std::uint64_t kIncrement = 0x9e3779b97f4a7c15;
constexpr std::uint64_t kFirst = 0xbf58476d1ce4e5b9;
constexpr std::uint64_t kSecond = 0x94d049bb133111eb;

/// The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * kFirst;
  x = (x ^ (x >> 27)) * kSecond;
  return x ^ (x >> 31);
}

/// The same on signed numbers, in place. Their shifts copy the sign, so 63 bits are left: none is
/// negative.
torch::Tensor mix(torch::Tensor x) {
  x.bitwise_xor_(x.bitwise_right_shift(30)).mul_(static_cast<std::int64_t>(kFirst));
  x.bitwise_xor_(x.bitwise_right_shift(27)).mul_(static_cast<std::int64_t>(kSecond));
  return x.bitwise_xor_(x.bitwise_right_shift(31));
}

std::int64_t noise_key(std::uint64_t seed, std::int64_t prompt, std::size_t position) {
  const std::uint64_t of_prompt =
      mix(mix(seed + kIncrement) + static_cast<std::uint64_t>(prompt) * kIncrement);
  return static_cast<std::int64_t>(mix(of_prompt + position * kIncrement));
}

/// −ln(−ln u) with u uniform on (0, 1), from the key of the row and the token: fp32 [keys ×
/// tokens]. The token with the highest logit + noise is a sample of the softmax (Gumbel 1954), and
/// every rank can tell its own part of the vocabulary.
torch::Tensor gumbel_noise(const torch::Tensor& keys, dist::Range tokens) {
  const torch::Tensor words = torch::arange(tokens.begin, tokens.end, keys.options())
                                  .mul_(static_cast<std::int64_t>(kIncrement));
  // 1 − u, which is fine near 0: there the noise is high, and decides.
  const torch::Tensor complement =
      mix(keys.unsqueeze(1) + words).to(torch::kFloat32).add_(0.5).mul_(std::ldexp(1.0, -63));
  return complement.clamp_max_(1.0 - std::ldexp(1.0, -24)).neg_().log1p_().neg_().log_().neg_();
}

/// Continues the prompts of one tensor group.
class Generation {
 public:
  Generation(const CausalLM& model, const std::vector<Tokens>& prompts,
             const GenerateOptions& options, const std::string& what)
      : model_(model), prompts_(prompts), options_(options), what_(what), results_(prompts.size()) {
    const io::ModelConfig& config = model.config();
    positions_ = config.sliding_window.value_or(config.max_position);
    positions_ = std::min(positions_, config.max_position);
  }

  /// Collective over the tensor ranks.
  void run(std::span<const std::int64_t> members, dist::log::Progress& progress) {
    std::vector<std::int64_t> rows(members.begin(), members.end());  // prompt of each row
    std::int64_t longest = 0;
    for (const std::int64_t prompt : rows) longest = std::max(longest, length(prompt));
    std::vector<std::int64_t> padding;
    for (const std::int64_t prompt : rows) padding.push_back(longest - length(prompt));
    KvCache cache(padding, longest + options_.max_tokens, model_.options().device);
    torch::Tensor tokens = padded(rows, padding, longest);
    while (!rows.empty()) {
      const torch::Tensor states = model_.hidden_states(tokens, cache).select(1, -1);
      torch::Tensor next = choose(states, rows);
      const std::vector<std::int64_t> running = append(next, rows, progress);
      // To move the rest of the cache is worth it when a quarter of the rows has ended.
      if (running.size() * 4 <= rows.size() * 3) {
        cache.keep(running);
        next = next.index_select(0, torch::tensor(running, torch::kInt64));
        for (std::size_t i = 0; i < running.size(); ++i) {
          rows[i] = rows[static_cast<std::size_t>(running[i])];
        }
        rows.resize(running.size());
      }
      tokens = next.unsqueeze(1);
    }
  }

  std::vector<Tokens>& results() { return results_; }

 private:
  std::int64_t length(std::int64_t prompt) const {
    return std::ssize(prompts_[static_cast<std::size_t>(prompt)]);
  }

  torch::Tensor padded(const std::vector<std::int64_t>& rows,
                       const std::vector<std::int64_t>& padding, std::int64_t longest) const {
    torch::Tensor tokens = torch::zeros({std::ssize(rows), longest}, torch::kInt64);
    auto* row = tokens.data_ptr<std::int64_t>();
    for (std::size_t i = 0; i < rows.size(); ++i, row += longest) {
      std::ranges::copy(prompts_[static_cast<std::size_t>(rows[i])], row + padding[i]);
    }
    return tokens;
  }

  /// Collective over the tensor ranks. The next token of each row, i64 on the host.
  torch::Tensor choose(const torch::Tensor& states, const std::vector<std::int64_t>& rows) const {
    if (options_.temperature == 0) {
      return best_tokens(model_, states, [](torch::Tensor logits, std::int64_t) { return logits; });
    }
    std::vector<std::int64_t> keys;
    for (const std::int64_t prompt : rows) {
      const std::size_t position =
          prompt == kEnded ? 0 : results_[static_cast<std::size_t>(prompt)].size();
      keys.push_back(noise_key(options_.seed, prompt, position));
    }
    const torch::Tensor all_keys = torch::tensor(keys, torch::kInt64).to(states.device());
    return best_tokens(model_, states, [&](const torch::Tensor& logits, std::int64_t begin) {
      return (logits / options_.temperature)
          .add_(gumbel_noise(all_keys.narrow(0, begin, logits.size(0)), model_.vocab_range()));
    });
  }

  /// Adds the next tokens to the results. Returns the rows that go on; the others are set to
  /// kEnded.
  std::vector<std::int64_t> append(const torch::Tensor& next, std::vector<std::int64_t>& rows,
                                   dist::log::Progress& progress) {
    const auto* tokens = next.const_data_ptr<std::int64_t>();
    std::vector<std::int64_t> running;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == kEnded) continue;
      if (append(tokens[i], rows[i])) {
        running.push_back(static_cast<std::int64_t>(i));
      } else {
        rows[i] = kEnded;
        progress.advance(1);
      }
    }
    return running;
  }

  /// Whether the prompt goes on.
  bool append(std::int64_t token, std::int64_t prompt) {
    if (token == model_.config().vocab_size) {
      throw dist::NumericalError(fmt::format(
          "{}, prompt {}: the logits are NaN; check the checkpoint, or run with compute: fp32",
          what_, prompt));
    }
    if (token == options_.end_token) return false;
    Tokens& result = results_[static_cast<std::size_t>(prompt)];
    result.push_back(static_cast<std::int32_t>(token));
    return std::ssize(result) < std::min(options_.max_tokens, positions_ - length(prompt) + 1);
  }

  const CausalLM& model_;
  const std::vector<Tokens>& prompts_;
  const GenerateOptions& options_;
  const std::string& what_;
  std::vector<Tokens> results_;
  std::int64_t positions_;  ///< that a sequence can have
};

void check_prompts(const io::ModelConfig& config, const std::vector<Tokens>& prompts,
                   const std::string& what) {
  io::Sequences sequences;
  for (const Tokens& prompt : prompts) {
    if (prompt.empty()) {
      throw dist::InputError(
          fmt::format("{}, prompt {} has no token; begin it with one", what, sequences.count()));
    }
    sequences.append(prompt, std::vector<std::uint8_t>(prompt.size()));
  }
  check_sequences(config, sequences, what);
}

/// Which prompts run together: neither a pass nor the cache may grow too large.
BatchPlan plan(const std::vector<Tokens>& prompts, int data_ranks, const GenerateOptions& options) {
  std::vector<std::int64_t> costs;
  for (const Tokens& prompt : prompts) {
    const std::int64_t cached = std::ssize(prompt) + options.max_tokens;
    costs.push_back(std::max(std::ssize(prompt), (cached + kCachedTokens - 1) / kCachedTokens));
  }
  std::vector<std::int64_t> all(prompts.size());
  std::iota(all.begin(), all.end(), 0);
  return plan_batches(costs, std::move(all), data_ranks, options.batch_tokens);
}

/// Collective over `data`: each prompt has its result on one rank, and gets it on all.
void share(const dist::Communicator& data, std::int64_t max_tokens, std::vector<Tokens>& results) {
  if (data.size() == 1) return;
  const auto width = static_cast<std::size_t>(max_tokens);
  std::vector<std::int32_t> all(results.size() * width);  // token + 1, 0 behind the end
  for (std::size_t i = 0; i < results.size(); ++i) {
    for (std::size_t t = 0; t < results[i].size(); ++t) all[i * width + t] = results[i][t] + 1;
  }
  data.all_reduce(std::span(all));
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i].clear();
    for (std::size_t t = 0; t < width && all[i * width + t] > 0; ++t) {
      results[i].push_back(all[i * width + t] - 1);
    }
  }
}

}  // namespace

std::vector<std::vector<std::int32_t>> generate(
    const CausalLM& model, const dist::ParallelLayout& layout,
    const std::vector<std::vector<std::int32_t>>& prompts, const GenerateOptions& options,
    const std::string& what) {
  const c10::InferenceMode inference;
  MRP_EXPECT(options.max_tokens > 0 && options.temperature >= 0);
  dist::agree(layout.world(), [&] { check_prompts(model.config(), prompts, what); });
  const BatchPlan batches = plan(prompts, layout.data().size(), options);
  Generation generation(model, prompts, options, what);
  const auto& mine = batches.batches[static_cast<std::size_t>(layout.data().rank())];
  std::int64_t sequences = 0;
  for (const dist::Range& batch : mine) sequences += batch.size();
  dist::log::Progress progress(layout.data().size() > 1 ? what + ", rank 0" : what, sequences,
                               "sequences");
  dist::agree(layout.world(), [&] {
    for (const dist::Range& batch : mine) generation.run(batches.members(batch), progress);
  });
  share(layout.data(), options.max_tokens, generation.results());
  return std::move(generation.results());
}

}  // namespace mrp::shard
