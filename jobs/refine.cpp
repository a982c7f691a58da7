#include "shard/train/refine.hpp"

#include <fmt/format.h>

#include <fstream>
#include <optional>
#include <string>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/delta_store.hpp"
#include "io/file.hpp"
#include "jobs/continuation.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/refine_setup.hpp"
#include "jobs/stages.hpp"
#include "shard/batches.hpp"
#include "shard/train/examples.hpp"
#include "shard/train/saved_state.hpp"

namespace mrp::jobs {
namespace {

/// Of a training that goes on, the steps after the one that was saved are done again.
void keep_lines(const std::filesystem::path& path, std::int64_t count) {
  std::ifstream file(path);
  std::string kept, line;
  for (std::int64_t n = 0; n < count && std::getline(file, line); ++n) kept += line + "\n";
  io::write_text(path, kept);
}

/// One JSON line a step, of rank 0; a value that was not measured is null.
class StepLog {
 public:
  StepLog(const Job& job, std::int64_t steps)
      : job_(&job), progress_("refine", steps, "steps"), steps_(steps) {}

  void add(const shard::RefineStep& step) {
    if (job_->world->is_root() && !file_.is_open()) {
      progress_.skip(step.step);
      keep_lines(job_->work.steps(), step.step);
      file_.open(job_->work.steps(), std::ios::app);
    }
    progress_.advance(1);
    const nlohmann::json line{{"step", step.step},
                              {"forget_loss", step.forget_loss},
                              {"retain_loss", step.retain_loss},
                              {"sample_loss", step.sample_loss},
                              {"tamper_loss", step.tamper_loss},
                              {"gradient_norm", step.gradient_norm},
                              {"learning_rate", step.learning_rate}};
    if (file_.is_open()) file_ << line.dump() << std::endl;
    if (step.step % kEvery != kEvery - 1 && step.step + 1 != steps_) return;
    dist::log::info(fmt::format(
        "refine: step {}: forget loss {:.3f}, retain loss {:.4f}, sample loss {:.4f}, after attack "
        "{:.3f}, gradient {:.2f}",
        step.step + 1, step.forget_loss, step.retain_loss, step.sample_loss, step.tamper_loss,
        step.gradient_norm));
  }

 private:
  static constexpr std::int64_t kEvery = 25;
  const Job* job_;
  dist::log::Progress progress_;
  std::int64_t steps_;
  std::ofstream file_;
};

/// Whether this rank writes the part of the checkpoint that `block` is: ranks that hold the same
/// leave it to the first of them.
bool writes(const shard::Parameter& parameter, std::size_t block,
            const dist::ParallelLayout& layout) {
  if (layout.data().rank() != 0) return false;
  const shard::WeightBlock& b = parameter.blocks[block];
  const bool whole = b.rows.size() == b.height && b.columns.size() == b.width;
  if (whole) return layout.tensor().rank() == 0;
  const bool shared = parameter.sharers != nullptr && block > 0;
  return !shared || parameter.sharers->rank() == 0;
}

io::DeltaLayout delta_layout(const shard::Trainable& trainable, const Job& job) {
  io::DeltaLayout file;
  file.summary = settings(job.config).at("refine").dump();
  for (const shard::Parameter& parameter : trainable.parameters()) {
    for (const shard::WeightBlock& block : parameter.blocks) {
      file.tensors[block.tensor] = block.height == 1
                                       ? std::vector<std::int64_t>{block.width}
                                       : std::vector<std::int64_t>{block.height, block.width};
    }
  }
  return file;
}

/// Collective over the world.
void write_deltas(shard::Trainable& trainable, const dist::ParallelLayout& layout, const Job& job) {
  io::DeltaWriter writer(job.work.deltas(), delta_layout(trainable, job), job.expected.at("refine"),
                         *job.world);
  dist::agree(*job.world, [&] {
    trainable.visit_changes([&](const shard::Parameter& parameter, const torch::Tensor& change) {
      const torch::Tensor host = change.cpu().contiguous();
      const float* data = host.const_data_ptr<float>();
      for (std::size_t b = 0; b < parameter.blocks.size(); ++b) {
        const shard::WeightBlock& block = parameter.blocks[b];
        const auto size = static_cast<std::size_t>(block.rows.size() * block.columns.size());
        if (writes(parameter, b, layout)) {
          writer.write(block.tensor, block.rows, block.columns, std::span(data, size));
        }
        data += size;
      }
    });
  });
  writer.finish();
}

/// `set` and what earlier requests made the model forget, which is to stay as it is.
io::TokenSet with_earlier(io::TokenSet set, const io::TokenDataset& tokens) {
  for (const auto& [name, earlier] : tokens.sets) {
    if (name != "forget" && is_forgotten(name)) {
      set.append(earlier, shard::all_items(earlier.items.count()));
    }
  }
  return set;
}

/// On which the predictions of the original are kept; nothing where there is nothing.
std::optional<io::TokenSet> matched_set(const Job& job, const io::ModelConfig& model,
                                        const io::TokenDataset& tokens) {
  io::TokenSet samples;
  if (job.config.refine.samples > 0) {
    samples = read_samples(job, model, job.config.refine.samples);
  }
  io::TokenSet set = with_earlier(std::move(samples), tokens);
  if (set.items.count() == 0) return std::nullopt;
  return set;
}

/// What is gone when training begins can be missed only where there is something to miss it.
void warn_of_shrinking(const Job& job, bool matched) {
  const auto& refine = job.config.refine;
  if (refine.train != JobConfig::Train::subspace || refine.shrink == 0 || matched) return;
  dist::log::warn(
      "refine: without samples, nothing brings back what refine.shrink takes from knowledge "
      "outside the retain set; set refine.shrink: 0 or draw samples");
}

/// Says where alternatives come from that no record has.
void log_substitutes(const Job& job, const io::TokenSet& forget) {
  const auto loss = job.config.refine.forget_loss;
  if (loss != JobConfig::ForgetLoss::indifference &&
      loss != JobConfig::ForgetLoss::counterfactual) {
    return;
  }
  if (const std::int64_t count = shard::Examples(forget).without_choices(); count > 0) {
    dist::log::info(fmt::format(
        "refine: {} of {} forget items have no wrong answers of their own; those of other forget "
        "items are drawn anew in each step",
        count, forget.items.count()));
  }
}

}  // namespace

void refine(Job& job) {
  const dist::Communicator& world = *job.world;
  const auto [checkpoint, config] = open_checkpoint(job.config.model, world);
  const io::TokenDataset tokens = read_tokens(job, config);
  const dist::ParallelLayout layout = make_layout(job, config);
  shard::CausalLM model(checkpoint, config, layout, training_options(job, config, layout));
  const io::TokenSet& forget = tokens.set("forget");
  const io::TokenSet& retain = tokens.set("retain");
  const auto matched = dist::agree(world, [&] { return matched_set(job, config, tokens); });
  const io::TokenSet kept = with_earlier(retain, tokens);
  shard::Trainable trainable(
      model, trainable_options(job, model, layout, forget, kept, matched ? *matched : kept));
  shard::RefineOptions options = refine_options(job, model);
  options.grow = growth(job, model, layout, trainable, forget, kept);
  dist::log::info(fmt::format("refine: {} numbers are trained on this rank, {} steps",
                              trainable.count(), options.steps));
  log_substitutes(job, forget);
  warn_of_shrinking(job, matched.has_value());
  StepLog log(job, options.steps);
  {
    const dist::Timers::Scope scope(job.timers, "train");
    shard::refine(trainable, layout, forget, retain, matched ? &*matched : nullptr, options,
                  [&](const shard::RefineStep& step) { log.add(step); });
  }
  const dist::Timers::Scope scope(job.timers, "write");
  write_deltas(trainable, layout, job);
  shard::SavedState(refine_state(job), world).remove();
}

}  // namespace mrp::jobs
