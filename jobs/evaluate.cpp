#include "shard/evaluate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "jobs/continuation.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/metrics_summary.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/rouge.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

/// One of the checkpoints, with what its metrics depend on besides the tokens.
struct Side {
  std::string name;
  std::filesystem::path checkpoint;
  nlohmann::json made_of;
  std::vector<std::string> missing;  ///< sets without current metrics
};

std::string measured_from(const Job& job, const Side& side, const std::string& set) {
  return stage_fingerprint("evaluate",
                           nlohmann::json::object({{"compute", settings(job.config).at("compute")},
                                                   {"generate", job.config.evaluate.generate}}),
                           nlohmann::json::array({side.made_of, job.expected.at("set." + set)}));
}

std::vector<std::string> set_names(const Job& job) {
  constexpr std::string_view kPrefix = "set.";
  std::vector<std::string> names;
  for (const auto& [artefact, fingerprint] : job.expected) {
    if (artefact.starts_with(kPrefix)) names.push_back(artefact.substr(kPrefix.size()));
  }
  return names;
}

/// Names of the sets that `file` has no current metrics of. Collective: rank 0 knows.
std::vector<std::string> missing_sets(const Job& job, const Side& side, const MetricsFile& file) {
  nlohmann::json missing = nlohmann::json::array();
  for (const std::string& set : set_names(job)) {
    const auto sides = file.sets.find(set);
    const bool current =
        sides != file.sets.end() && sides->second.contains(side.name) &&
        sides->second.at(side.name).at("fingerprint") == measured_from(job, side, set);
    if (!current || job.force) missing.push_back(set);
  }
  return nlohmann::json::parse(job.world->broadcast(missing.dump()));
}

std::vector<Side> sides_of(const Job& job, const MetricsFile& file) {
  const auto made_of = [&](const char* own) {
    return nlohmann::json::array({job.expected.at(own), job.expected.at("base")});
  };
  std::vector<Side> sides = {{"base", job.config.model, made_of("base"), {}},
                             {"unlearned", job.config.output, made_of("merge"), {}}};
  if (const auto& control = job.config.evaluate.control; !control.empty()) {
    sides.push_back({"control", control, made_of("control"), {}});
  }
  for (Side& side : sides) {
    side.missing = missing_sets(job, side, file);
    if (side.missing.empty()) dist::log::info(fmt::format("evaluate: {}: up to date", side.name));
  }
  return sides;
}

/// Collective. `reference` is the base model, null where that is `model` itself.
void measure(Job& job, const Side& side, const shard::CausalLM& model,
             const shard::CausalLM* reference, const dist::ParallelLayout& layout,
             const io::TokenDataset& tokens, MetricsFile& file) {
  const dist::Timers::Scope scope(job.timers, side.name);
  std::map<std::string, nlohmann::json> measured;
  for (const std::string& set : side.missing) {
    const dist::Timers::Scope set_scope(job.timers, set);
    const auto metrics =
        shard::evaluate(model, layout, tokens.set(set), batch_tokens(job.config, model), reference);
    measured[set] = to_json(metrics, measured_from(job, side, set));
    dist::log::info(fmt::format("evaluate: {}: {}: {} items, NLL {:.3f}, answer probability {:.3f}",
                                side.name, set, metrics.items, metrics.nll,
                                metrics.answer_probability));
  }
  if (job.config.evaluate.generate) add_rouge(job, model, layout, tokens, measured);
  if (!job.world->is_root()) return;
  for (auto& [set, found] : measured) {
    summarise(found, is_forgotten(set));
    file.sets[set][side.name] = std::move(found);
  }
}

/// Collective. Measures what is missing, side by side, and writes the file after each.
void measure_all(Job& job, const std::vector<Side>& sides, MetricsFile& file) {
  if (std::ranges::all_of(sides, [](const Side& side) { return side.missing.empty(); })) return;
  const auto [checkpoint, config] = open_checkpoint(job.config.model, *job.world);
  const io::TokenDataset tokens = read_tokens(job, config);
  const dist::ParallelLayout layout = make_layout(job, config);
  const shard::ModelOptions options = model_options(job);
  const shard::CausalLM base(checkpoint, config, layout, options);
  for (const Side& side : sides) {
    if (side.missing.empty()) continue;
    if (side.name == "base") {
      measure(job, side, base, nullptr, layout, tokens, file);
    } else {
      const auto other = open_checkpoint(side.checkpoint, *job.world);
      const shard::CausalLM model(other.checkpoint, other.config, layout, options);
      measure(job, side, model, &base, layout, tokens, file);
    }
    dist::agree(*job.world, [&] {
      if (job.world->is_root()) file.write(job.work.metrics());
    });
  }
}

void warn_of_losses(const MetricsFile& file, const JobConfig& config) {
  const auto losses = file.comparison.value("losses", nlohmann::json::array());
  for (const auto& loss : losses) {
    dist::log::warn(fmt::format(
        "evaluate: retain {} is {:.3f} and was {:.3f}: more than a hundredth of what is to be kept "
        "is lost",
        loss.at("metric").get<std::string>(), loss.at("unlearned").get<double>(),
        loss.at("base").get<double>()));
  }
  if (losses.empty()) return;
  dist::log::warn(config.refine.train == JobConfig::Train::none
                      ? "evaluate: a smaller subspace.dimension keeps more"
                      : "evaluate: a lower refine.learning_rate or more retain records keep more");
}

void warn_of_leaks(const MetricsFile& file) {
  for (const auto& leak : file.comparison.value("leaks", nlohmann::json::array())) {
    dist::log::warn(fmt::format(
        "evaluate: forget {} {:.3f} lies on the far side of the control's {:.3f}: what was "
        "forgotten can be told from it",
        leak.at("metric").get<std::string>(), leak.at("unlearned").get<double>(),
        leak.at("control").get<double>()));
  }
}

}  // namespace

void evaluate(Job& job) {
  const bool writes = job.world->is_root();
  MetricsFile file;
  if (writes) file = MetricsFile::read(job.work.metrics());
  file.fingerprint.clear();  // until everything is measured
  file.comparison.clear();
  std::erase_if(file.sets,
                [&](const auto& entry) { return !job.expected.contains("set." + entry.first); });
  const auto sides = sides_of(job, file);
  for (auto& [set, measured] : file.sets) {
    std::erase_if(measured, [&](const auto& entry) {
      return std::ranges::find(sides, entry.first, &Side::name) == sides.end();
    });
  }
  measure_all(job, sides, file);
  dist::agree(*job.world, [&] {
    if (!writes) return;
    file.comparison = compare(file, job.config.evaluate.holdout);
    file.fingerprint = job.expected.at("evaluate");
    warn_of_losses(file, job.config);
    warn_of_leaks(file);
    file.write(job.work.metrics());
  });
}

}  // namespace mrp::jobs
