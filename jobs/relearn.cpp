#include "shard/train/relearn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "io/subspace_store.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/metrics_summary.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/relearn_file.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;
using shard::Attacker;

constexpr std::array<std::pair<const char*, Attacker>, 5> kAttackers{
    {{"qv_lora", Attacker::qv_lora},
     {"all_weights", Attacker::all_weights},
     {"benign", Attacker::benign},
     {"int8", Attacker::int8},
     {"int4", Attacker::int4}}};

/// The runs against one model, without their curves. What does not train runs once a direction.
std::vector<json> planned_runs(const Job& job, const std::string& model,
                               const std::string& fingerprint_of_model) {
  const auto& relearn = job.config.relearn;
  const bool has_projectors = model == "unlearned" && folds(job);
  std::vector<json> runs;
  for (const auto& [name, attacker] : kAttackers) {
    if (std::count(relearn.attackers.begin(), relearn.attackers.end(), name) == 0) continue;
    const bool trains = shard::trains(attacker);
    for (const double rate : trains ? relearn.learning_rates : std::vector<double>{0.0}) {
      for (const std::int64_t seed : relearn.seeds) {
        for (const int direction : {0, 1}) {
          for (const char* projection : {"folded", "kept"}) {
            if (projection == std::string("kept") && !(has_projectors && trains)) continue;
            json run{{"model", model}, {"attacker", name},       {"learning_rate", rate},
                     {"seed", seed},   {"direction", direction}, {"projection", projection}};
            run["fingerprint"] =
                stage_fingerprint("relearn",
                                  json::object({{"run", run},
                                                {"steps", relearn.steps},
                                                {"compute", settings(job.config).at("compute")}}),
                                  json::array({fingerprint_of_model, job.expected.at("set.forget"),
                                               job.expected.at("set.retain")}));
            runs.push_back(std::move(run));
          }
        }
      }
    }
  }
  return runs;
}

/// This rank's part of the projectors of the job, for input sides.
std::map<shard::Site, shard::Projector> local_projectors(const Job& job, shard::CausalLM& model,
                                                         const dist::ParallelLayout& layout) {
  std::map<shard::Site, shard::Projector> local;
  const auto file = dist::agree(*job.world, [&] { return folded_subspaces(job); });
  for (const auto& [name, found] : file.sites) {
    const shard::Site site = shard::Site::parse(name);
    if (found.k == 0 || site.side != shard::Side::input) continue;
    const auto matrix = [&](const std::vector<double>& values) {
      return local_rows(values, found.width, site, layout)
          .to(model.options().device, torch::kFloat32);
    };
    local[site] = {matrix(found.a), matrix(found.b)};
  }
  return local;
}

json points(const std::vector<std::pair<std::int64_t, shard::SetMetrics>>& curve) {
  json all = json::array();
  for (const auto& [step, metrics] : curve) {
    json point = means(to_json(metrics, ""), /*is_forget=*/true);
    point["step"] = step;
    all.push_back(std::move(point));
  }
  return all;
}

/// Collective over the world: the attack that `run` describes.
json attack(const Job& job, const json& run, shard::CausalLM& model,
            const dist::ParallelLayout& layout, const io::TokenDataset& tokens) {
  const auto named = std::find_if(kAttackers.begin(), kAttackers.end(), [&](const auto& entry) {
    return run.at("attacker") == entry.first;
  });
  shard::AttackOptions options;
  options.attacker = named->second;
  options.learning_rate = run.at("learning_rate");
  options.steps = job.config.relearn.steps;
  options.seed = run.at("seed");
  options.batch_tokens = batch_tokens(job.config, model);
  if (run.at("projection") == "kept") options.projectors = local_projectors(job, model, layout);
  const io::TokenSet& forget = tokens.set("forget");
  const shard::Split split = dist::agree(*job.world, [&] {
    return shard::split_items(forget, options.seed, run.at("direction").get<int>());
  });
  const bool benign = options.attacker == Attacker::benign;
  return points(shard::attack(model, layout,
                              benign ? tokens.set("retain") : shard::subset(forget, split.known),
                              shard::subset(forget, split.hidden), options));
}

void log_run(const json& run) {
  double most = 0;
  for (const json& point : run.at("curve")) {
    most = std::max(most, point.at("answer_probability").get<double>());
  }
  dist::log::info(
      fmt::format("relearn: {}: {}, learning rate {:g}, seed {}, direction {}, {}: answer "
                  "probability {:.3f} -> "
                  "at most {:.3f}",
                  run.at("model").get<std::string>(), run.at("attacker").get<std::string>(),
                  run.at("learning_rate").get<double>(), run.at("seed").get<std::int64_t>(),
                  run.at("direction").get<int>(), run.at("projection").get<std::string>(),
                  run.at("curve").at(0).at("answer_probability").get<double>(), most));
}

/// Collective over the world. Adds to `file` the runs against one model, those that `known` has
/// from it.
void attack_model(Job& job, const std::string& name, const std::filesystem::path& directory,
                  const std::vector<json>& runs, const json& known, RelearnFile& file) {
  // Null: it has to be done.
  const auto done = [&](const json& run) -> const json* {
    const auto found = std::find_if(known.begin(), known.end(), [&](const json& other) {
      return other.at("fingerprint") == run.at("fingerprint");
    });
    return found == known.end() || job.force ? nullptr : &*found;
  };
  if (std::ranges::all_of(runs, done)) {
    for (const json& run : runs) file.runs.push_back(*done(run));
    return;
  }
  const auto [checkpoint, config] = open_checkpoint(directory, *job.world);
  const io::TokenDataset tokens = read_tokens(job, config);
  const dist::ParallelLayout layout = make_layout(job, config);
  shard::CausalLM model(checkpoint, config, layout, training_options(job, config, layout));
  dist::log::Progress progress("relearn " + name, std::ssize(runs), "attacks");
  for (json run : runs) {
    if (const json* found = done(run)) {
      file.runs.push_back(*found);
    } else {
      run["curve"] = attack(job, run, model, layout, tokens);
      log_run(run);
      file.runs.push_back(std::move(run));
      dist::agree(*job.world, [&] {
        if (job.world->is_root()) file.write(job.work.relearn());
      });
    }
    progress.advance(1);
  }
}

}  // namespace

void relearn(Job& job) {
  const std::string text = job.world->broadcast(dist::agree(*job.world, [&] {
    return job.world->is_root() ? RelearnFile::read(job.work.relearn()).runs.dump() : std::string();
  }));
  const json known = json::parse(text);
  RelearnFile file;
  struct Model {
    const char* name;
    const char* expected;
    std::filesystem::path directory;
  };
  std::vector<Model> models{{"unlearned", "merge", job.config.output},
                            {"base", "base", job.config.model}};
  if (!job.config.evaluate.control.empty()) {
    models.push_back({"control", "control", job.config.evaluate.control});
  }
  for (const Model& model : models) {
    const dist::Timers::Scope scope(job.timers, model.name);
    attack_model(job, model.name, model.directory,
                 planned_runs(job, model.name, job.expected.at(model.expected)), known, file);
  }
  file.fingerprint = job.expected.at("relearn");
  dist::agree(*job.world, [&] {
    if (job.world->is_root()) file.write(job.work.relearn());
  });
}

}  // namespace mrp::jobs
