#include "jobs/cost.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "jobs/confinement.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/model_size.hpp"
#include "jobs/passes.hpp"
#include "jobs/refine_setup.hpp"
#include "jobs/stages.hpp"
#include "shard/capture.hpp"
#include "solver/schedule.hpp"
#include "solver/subspace.hpp"

namespace mrp::jobs {
namespace {

using shard::Side, shard::Site, shard::SiteModule;
using Count = double;  // of elements, tokens or bytes: products of them exceed 64 bits

constexpr Count kMebibyte = 1 << 20;

/// The formulas of one job.
class Costs {
 public:
  Costs(const Job& job, const io::Checkpoint& checkpoint, const io::ModelConfig& model,
        const io::TokenDataset& tokens, const Spread& spread)
      : job_(job), model_(model), tokens_(tokens), spread_(spread) {
    for (const auto& file : checkpoint.files()) {
      checkpoint_bytes_ += static_cast<Count>(file.file_size());
    }
    width_ = static_cast<Count>(torch::elementSize(spread.dtype));
    budget_ = batch_tokens(job.config, model, spread.device);
  }

  StageCost prepare() const {
    StageCost cost{.stage = "prepare"};
    for (const auto& [name, path] : job_.config.sets()) {
      cost.read += static_cast<Count>(std::filesystem::file_size(path));
    }
    cost.written = static_cast<Count>(std::filesystem::file_size(job_.work.tokens()));
    return cost;
  }

  StageCost capture() const {
    StageCost cost{.stage = "capture"};
    const auto sites = make_sites(job_.config, model_);
    const Site last = sites.back();
    const std::int64_t layers = last.layer + 1;
    Count row_width = 0;
    for (const Site& site : sites) row_width += static_cast<Count>(site.width(model_));
    // One all-reduce after the embedding and two in each layer, as far as the last site needs them.
    Count reduces = 1 + 2 * static_cast<Count>(last.layer);
    if (last > Site{last.layer, SiteModule::o_proj, Side::input}) ++reduces;
    if (last > Site{last.layer, SiteModule::down_proj, Side::input}) ++reduces;
    Count all_tokens = 0;
    for (const char* set : {"forget", "retain"}) {
      const Passes passes = plan_passes(tokens_.set(set).items, budget_, spread_.data);
      cost.operations += forward(passes, layers);
      cost.sent += all_reduce(passes.tokens_of_rank, reduces);
      cost.written += rows(set) * row_width * width_;
      all_tokens += passes.tokens_of_rank;
    }
    const Count sampled = sampled_rows();
    cost.operations += forward({sampled, sampled * sample_length(), 0}, layers);
    cost.sent += all_reduce(sampled / spread_.data, reduces);
    cost.written += sampled * row_width * width_;
    all_tokens += sampled / spread_.data;
    const Count share = layer_elements(model_) / spread_.tensor * width_;
    const bool whole = spread_.residency == shard::Residency::full;
    const Count embedding = vocabulary_elements(model_) / spread_.tensor * width_;
    const Count streams = all_tokens * static_cast<Count>(model_.hidden_size) * width_;
    cost.read =
        spread_.data * (matrices(model_, layers) + vocabulary_elements(model_)) * stored_width();
    cost.memory = activations() + std::min(512 * kMebibyte, cost.written / spread_.ranks()) +
                  (whole ? static_cast<Count>(layers) * share + embedding
                         : std::max(2 * share, share + embedding) + streams);
    return cost;
  }

  StageCost solve() const {
    StageCost cost{.stage = "solve"};
    const bool automatic = !job_.config.subspace.dimension;
    const Count both = rows("forget") + rows("retain") + sampled_rows();
    const auto sites = make_sites(job_.config, model_);
    std::vector<solver::Problem> problems;
    Count states = 0;
    for (const Site& site : sites) {
      problems.push_back(
          {site.width(model_), static_cast<std::int64_t>(both), directions(), automatic});
      cost.wide += solver::work(problems.back());
      states += static_cast<Count>(site.width(model_)) * both * width_;
    }
    // Moments of both sets and, for an automatic dimension, of three random divisions.
    cost.read = states * (automatic ? 5 : 2);
    const auto assignment = solver::assign(problems, spread_.ranks(), spread_.memory / 2);
    for (std::size_t i = 0; i < problems.size(); ++i) {
      const int ranks = assignment[i] < 0 ? spread_.ranks() : 1;
      cost.memory = std::max(cost.memory, solver::memory(problems[i]) / ranks);
    }
    for (const Site& site : sites)
      cost.written += static_cast<Count>(16 * directions() * site.width(model_));
    cost.operations = cost.wide;
    return cost;
  }

  StageCost sample() const {
    StageCost cost{.stage = "sample"};
    const Count tokens = static_cast<Count>(job_.config.samples()) * sample_length();
    cost.operations = forward({tokens, tokens * sample_length(), 0}, model_.layers) + head(tokens);
    cost.sent = all_reduce(tokens / spread_.data, 1 + 2 * static_cast<Count>(model_.layers));
    cost.read = spread_.data * checkpoint_bytes_;
    cost.written = tokens * 5;
    cost.memory = model_memory() + activations();
    return cost;
  }

  StageCost refine() const {
    StageCost cost{.stage = "refine"};
    const auto& refine = job_.config.refine;
    const auto steps = static_cast<Count>(refine.steps);
    const Count tokens = tokens_a_step();
    const Count trained = trained_elements(), own = trained / spread_.tensor;
    const Count attacks = refine.tamper_resistance > 0 ? 1 : 0;
    // Forward, again where layers are computed again, and twice that back. S and T are applied once
    // a step to what is trained, and once to its gradient: by two factors, or as one matrix.
    Count confining = 0, measured = 0, kept = 0;
    for (const auto& [width, weights] : confined()) {
      const auto directions =
          static_cast<Count>(confined_directions(static_cast<std::int64_t>(width)));
      confining += 2 * 2 * std::min(2 * directions, width) * weights;
      measured += 4 * width * width;
      kept += 4 * width * directions;
    }
    const auto layers = static_cast<Count>(model_.layers);
    const Count products = (spread_.recompute ? 8 : 6) * matrices(model_, model_.layers) * tokens;
    cost.operations = steps * (products + 3 * head(tokens) + layers * confining) +
                      static_cast<Count>(refine.grow_rounds) * growing();
    cost.sent = 3 * all_reduce(steps * tokens / spread_.data, 1 + 2 * layers) +
                (spread_.data > 1 ? steps * own * 4 * (1 + attacks) : 0);
    cost.read = spread_.data * checkpoint_bytes_;
    cost.written = trained * 4;
    // Weights before and as they are; leaves, their gradients, and the optimizer's two moments. Of
    // the simulated attack, its change, its moments, and the weights that it sets out from.
    const Count training = own * (width_ + 4 + 4 + 8.0 / spread_.data + attacks * (width_ + 12));
    // Of projections that grow: moments of both sets, and what the projections leave of them.
    const Count grown = refine.grow_rounds > 0 ? layers * 4 * 4 * squared_widths() : 0;
    cost.memory =
        model_memory() + recorded() + std::max(layers * measured, layers * kept + training + grown);
    return cost;
  }

  StageCost merge() const {
    StageCost cost{.stage = "merge"};
    if (folds(job_)) {
      for (const Site& site : make_sites(job_.config, model_)) {
        cost.wide += 4 * static_cast<Count>(directions()) * elements(model_, site.module);
      }
    }
    const bool trained = job_.config.refine.train != JobConfig::Train::none;
    // Everything that is written is read back and compared.
    cost.read = 2 * checkpoint_bytes_ + (trained ? trained_elements() * 4 : 0);
    cost.written = checkpoint_bytes_;
    cost.operations = cost.wide;
    cost.memory = 64 * kMebibyte;
    return cost;
  }

  StageCost evaluate() const {
    StageCost cost{.stage = "evaluate"};
    const int models = job_.config.evaluate.control.empty() ? 2 : 3;
    for (const auto& [name, set] : tokens_.sets) {
      for (const io::Sequences* sequences : {&set.items, &set.options.sequences}) {
        const Passes passes = plan_packed(*sequences, budget_, spread_.data);
        const auto targets =
            std::accumulate(sequences->target_mask.begin(), sequences->target_mask.end(), Count{0});
        // All but the base are compared with it, item by item.
        const int runs = sequences == &set.items ? 2 * models - 1 : models;
        cost.operations += runs * (forward(passes, model_.layers) + head(targets));
        cost.sent +=
            runs * all_reduce(passes.tokens_of_rank, 1 + 2 * static_cast<Count>(model_.layers));
      }
    }
    cost.read = models * spread_.data * checkpoint_bytes_;
    cost.memory = model_memory() + activations();
    return cost;
  }

 private:
  Count stored_width() const { return checkpoint_bytes_ / weight_elements(model_); }

  /// Matrix products and attention of the layers.
  Count forward(const Passes& passes, std::int64_t layers) const {
    return 2 * matrices(model_, layers) * passes.tokens +
           4 * static_cast<Count>(layers * model_.heads * model_.head_dim) * passes.squares;
  }

  Count head(Count tokens) const { return 2 * vocabulary_elements(model_) * tokens; }

  /// Of `count` all-reduces of the residual stream; on processors in fp32.
  Count all_reduce(Count tokens, Count count) const {
    if (spread_.tensor == 1) return 0;
    return count * tokens * static_cast<Count>(model_.hidden_size) *
           (spread_.device.is_cpu() ? 4 : width_);
  }

  Count rows(const std::string& set) const {
    const io::Sequences& items = tokens_.set(set).items;
    Count kept = 0;
    for (std::int64_t i = 0; i < items.count(); ++i) {
      const auto mask = items.mask(i);
      kept += job_.config.sites.positions == shard::Positions::all
                  ? static_cast<Count>(mask.size()) - 1
                  : static_cast<Count>(std::count(mask.begin() + 1, mask.end(), 1));
    }
    return kept;
  }

  /// Of a site, at most.
  std::int64_t directions() const { return job_.config.subspace.most_directions(); }

  Count sample_length() const { return static_cast<Count>(job_.config.refine.sample_tokens); }
  /// At most: texts end earlier, and some are dropped.
  Count sampled_rows() const {
    return static_cast<Count>(job_.config.sites.samples) * sample_length();
  }

  /// What a pass of a batch holds at once in a layer.
  Count activations() const {
    return activation_elements(model_, budget_, spread_.tensor) * width_;
  }

  /// What training holds of all layers until their gradients are known.
  Count recorded() const {
    const auto layers = static_cast<Count>(model_.layers);
    if (!spread_.recompute) return layers * activations();
    return activations() + layers * static_cast<Count>(budget_ * model_.hidden_size) * width_;
  }

  Count model_memory() const { return weight_elements(model_) / spread_.tensor * width_; }

  Count trained_elements() const {
    Count sum = 0;
    for (const std::string& name : job_.config.refine.modules) {
      sum += elements(model_, input_site(name).module);
    }
    return sum * static_cast<Count>(model_.layers);
  }

  /// An S or a T of a rank in one layer, and the elements of the weights of all ranks on which such
  /// act.
  struct Confined {
    Count width, weights;
  };

  std::vector<Confined> confined() const {
    const auto& refine = job_.config.refine;
    std::vector<Confined> all;
    if (refine.train != JobConfig::Train::subspace) return all;
    const bool with_outputs = output_softness(job_.config, tokens_.set("forget")) > 0;
    for (const std::string& name : refine.modules) {
      const Site site = input_site(name);
      const auto width = static_cast<Count>(site.width(model_));
      const Count inputs = site.is_split() ? spread_.tensor : 1;
      const Count outputs = site.is_split() ? 1 : spread_.tensor;
      all.push_back({width / inputs, elements(model_, site.module)});
      if (!with_outputs) continue;
      for (const Count height : heights(model_, site.module)) {
        all.push_back({height / outputs, height * width});
      }
    }
    return all;
  }

  /// Σ width² of a rank's inputs of the trained modules of one layer.
  Count squared_widths() const {
    Count sum = 0;
    for (const std::string& name : job_.config.refine.modules) {
      const Site site = input_site(name);
      const int ranks = site.is_split() ? spread_.tensor : 1;
      sum += std::pow(static_cast<Count>(site.width(model_)) / ranks, 2);
    }
    return sum;
  }

  /// Operations of one round in which projections grow: both sets pass once, for their moments.
  Count growing() const {
    const auto layers = static_cast<Count>(model_.layers);
    Count sum = 0;
    for (const char* set : {"forget", "retain"}) {
      const Passes passes = plan_passes(tokens_.set(set).items, budget_, spread_.data);
      sum += forward(passes, model_.layers) +
             2 * layers * squared_widths() * spread_.tensor * passes.tokens;
    }
    return sum;
  }

  Count mean_length(const io::Sequences& sequences) const {
    return static_cast<Count>(sequences.token_ids.size()) /
           std::max<Count>(1, static_cast<Count>(sequences.count()));
  }

  Count mean_targets(const io::Sequences& sequences) const {
    const auto& mask = sequences.target_mask;
    return static_cast<Count>(std::ranges::count(mask, std::uint8_t{1})) /
           std::max<Count>(1, static_cast<Count>(sequences.count()));
  }

  /// Forget items in their forms, retain items, samples, and a simulated attack with its check.
  Count tokens_a_step() const {
    const auto& refine = job_.config.refine;
    const io::TokenSet& forget = tokens_.set("forget");
    const Count forms = 2 + static_cast<Count>(forget.options.sequences.count()) /
                                std::max<Count>(1, static_cast<Count>(forget.items.count())) / 2;
    const auto batch = static_cast<Count>(refine.batch);
    const Count item = mean_length(forget.items), answer = mean_targets(forget.items);
    // The prompt runs once, or twice where the drawn answer is of another form.
    const Count all_forms = 1.5 * (item - answer) + forms * answer;
    Count tokens = batch * (all_forms + mean_length(tokens_.set("retain").items));
    if (refine.samples > 0) {
      tokens += static_cast<Count>(refine.sample_batch) * static_cast<Count>(refine.sample_tokens);
    }
    if (refine.tamper_resistance > 0) tokens += batch / 2 * (item + all_forms);
    return tokens;
  }

  const Job& job_;
  const io::ModelConfig& model_;
  const io::TokenDataset& tokens_;
  const Spread& spread_;
  Count checkpoint_bytes_ = 0;
  Count width_ = 4;  // bytes of an element of weights and states
  std::int64_t budget_ = 0;
};

}  // namespace

std::vector<StageCost> stage_costs(const Job& job, const io::Checkpoint& checkpoint,
                                   const io::ModelConfig& model, const io::TokenDataset& tokens,
                                   const Spread& spread) {
  const Costs costs(job, checkpoint, model, tokens, spread);
  using Formula = StageCost (Costs::*)() const;
  constexpr std::pair<const char*, Formula> all[] = {
      {"prepare", &Costs::prepare},  {"sample", &Costs::sample}, {"capture", &Costs::capture},
      {"solve", &Costs::solve},      {"refine", &Costs::refine}, {"merge", &Costs::merge},
      {"evaluate", &Costs::evaluate}};
  std::vector<StageCost> found;
  for (const auto& [stage, formula] : all) {
    if (has_stage(job, stage)) found.push_back((costs.*formula)());
  }
  return found;
}

double work_bytes(const std::vector<StageCost>& costs) {
  double sum = 0;
  for (const StageCost& cost : costs) sum += cost.stage == "merge" ? 0 : cost.written;
  return sum;
}

}  // namespace mrp::jobs
