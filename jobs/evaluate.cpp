#include "shard/evaluate.hpp"

#include <fmt/format.h>

#include <optional>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

/// One of the two checkpoints, with the fingerprint that its metrics on a set carry.
struct Side {
  std::string name;
  std::filesystem::path checkpoint;
  std::string fingerprint;
};

std::string measured_from(const Job& job, const Side& side, const std::string& set) {
  return fingerprint(nlohmann::json::object({{"checkpoint", side.fingerprint},
                                             {"tokens", job.expected.at("set." + set)},
                                             {"compute", settings(job.config).at("compute")}}));
}

/// Names of the sets that `file` has no current metrics of. Collective: rank 0 knows.
std::vector<std::string> missing_sets(const Job& job, const Side& side, const MetricsFile& file) {
  nlohmann::json missing = nlohmann::json::array();
  for (const auto& [set, path] : job.config.sets()) {
    const auto sides = file.sets.find(set);
    const bool current =
        sides != file.sets.end() && sides->second.contains(side.name) &&
        sides->second.at(side.name).at("fingerprint") == measured_from(job, side, set);
    if (!current || job.force) missing.push_back(set);
  }
  return nlohmann::json::parse(job.world->broadcast(missing.dump()));
}

void measure(Job& job, const Side& side, MetricsFile& file) {
  const auto sets = missing_sets(job, side, file);
  if (sets.empty()) {
    dist::log::info(fmt::format("evaluate: {}: up to date", side.name));
    return;
  }
  const dist::Timers::Scope scope(job.timers, side.name);
  const auto [checkpoint, config] = open_checkpoint(side.checkpoint, *job.world);
  const io::TokenDataset tokens = read_tokens(job, config);
  const dist::ParallelLayout layout = make_layout(job, config);
  const shard::CausalLM model(checkpoint, config, layout, model_options(job));
  for (const std::string& set : sets) {
    const dist::Timers::Scope set_scope(job.timers, set);
    const auto metrics =
        shard::evaluate(model, layout, tokens.set(set), job.config.parallel.batch_tokens);
    file.sets[set][side.name] = to_json(metrics, measured_from(job, side, set));
    dist::log::info(fmt::format("evaluate: {}: {}: {} items, NLL {:.3f}, answer probability {:.3f}",
                                side.name, set, metrics.items, metrics.nll,
                                metrics.answer_probability));
  }
}

}  // namespace

void evaluate(Job& job) {
  const bool writes = job.world->is_root();
  MetricsFile file;
  if (writes) file = MetricsFile::read(job.work.metrics());
  file.fingerprint.clear();  // until everything is measured
  std::erase_if(file.sets,
                [&](const auto& entry) { return !job.config.sets().contains(entry.first); });
  const Side sides[] = {{"base", job.config.model, job.expected.at("base")},
                        {"unlearned", job.config.output, job.expected.at("merge")}};
  for (const Side& side : sides) {
    measure(job, side, file);
    if (side.name == "unlearned") file.fingerprint = job.expected.at("evaluate");
    dist::agree(*job.world, [&] {
      if (writes) file.write(job.work.metrics());
    });
  }
}

}  // namespace mrp::jobs
