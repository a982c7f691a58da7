#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "jobs/forget_like.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"
#include "shard/generate.hpp"

namespace mrp::jobs {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Fewer say nothing about the model.
constexpr std::int64_t kFewest = 8;

/// One token each, as the texts of the retain set begin: that is BOS, or what stands for it, or,
/// where there is none, the first words in their frequency.
std::vector<Tokens> starts(const io::Sequences& retain, std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Tokens> prompts;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto item = random() % static_cast<std::uint64_t>(retain.count());
    prompts.push_back({retain.tokens(static_cast<std::int64_t>(item)).front()});
  }
  return prompts;
}

void add_sample(const Tokens& tokens, std::size_t draw, io::TokenSet& set) {
  std::vector<std::uint8_t> mask(tokens.size(), 1);
  mask.back() = 0;
  set.items.append(tokens, mask);
  set.ids.push_back(fmt::format("sample:{}", draw));
  set.answer_index.push_back(-1);
  set.letter_position.push_back(-1);
  set.letter_offsets.push_back(0);
}

io::TokenSet to_set(const std::vector<Tokens>& samples, const io::TokenDataset& tokens) {
  const ForgetPhrases phrases(tokens.set("forget"), tokens.set("retain"));
  io::TokenSet set;
  set.name = "samples";
  set.source = "the base model";
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (phrases.share(samples[i]) <= kForgetLikeShare) add_sample(samples[i], i, set);
  }
  const auto drawn = std::ssize(samples);
  set.sampling = {drawn, drawn - set.items.count(),
                  fmt::format("more than {:g} % of the runs of {} tokens occur in the forget set "
                              "and not in the retain set",
                              100 * kForgetLikeShare, kPhraseTokens)};
  if (set.items.count() < kFewest) {
    throw dist::InputError(fmt::format(
        "only {} of {} samples of the base model are left ({} are like the forget set), {} are "
        "needed; draw more (refine.samples, sites.samples), or add to the retain set what the base "
        "model writes",
        set.items.count(), drawn, set.sampling->dropped, kFewest));
  }
  return set;
}

/// Collective over the world. Start token, what the model writes and, unless the length ended it,
/// the end token.
std::vector<Tokens> draw(Job& job, const OpenCheckpoint& base, const io::Sequences& retain) {
  const dist::ParallelLayout layout = make_layout(job, base.config);
  const shard::CausalLM model(base.checkpoint, base.config, layout, model_options(job));
  shard::GenerateOptions options;
  options.max_tokens =
      std::min({job.config.refine.sample_tokens, base.config.max_position - 1,
                base.config.sliding_window.value_or(base.config.max_position) - 1});
  options.temperature = 1;
  options.seed = job.config.seed;
  const auto& ends = base.config.eos_token_ids;
  if (!ends.empty()) options.end_token = static_cast<std::int32_t>(ends.front());
  options.batch_tokens = batch_tokens(job.config, model);
  std::vector<Tokens> samples = starts(retain, job.config.samples(), job.config.seed);
  const auto written = shard::generate(model, layout, samples, options, "sample");
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i].insert(samples[i].end(), written[i].begin(), written[i].end());
    if (std::ssize(written[i]) < options.max_tokens) samples[i].push_back(options.end_token);
  }
  return samples;
}

}  // namespace

void sample(Job& job) {
  const OpenCheckpoint base = open_checkpoint(job.config.model, *job.world);
  const io::TokenDataset tokens = read_tokens(job, base.config);
  const auto samples = draw(job, base, tokens.set("retain").items);

  io::TokenDataset file;
  file.fingerprint = job.expected.at("sample");
  file.tokenizer_sha256 = tokens.tokenizer_sha256;
  file.vocab_size = base.config.vocab_size;
  dist::agree(*job.world, [&] { file.sets.emplace("samples", to_set(samples, tokens)); });
  const io::TokenSet& set = file.set("samples");
  dist::log::info(fmt::format("sample: {} drawn, {} dropped, {} tokens left", set.sampling->drawn,
                              set.sampling->dropped, set.items.token_ids.size()));
  dist::agree(*job.world, [&] {
    if (job.world->is_root()) file.write(job.work.samples());
  });
}

}  // namespace mrp::jobs
