#include "jobs/config_keys.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "jobs/continuation.hpp"
#include "jobs/key_types.hpp"
#include "shard/capture.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

constexpr std::int64_t kMillion = 1'000'000;

/// "3" or "2-5", added to `layers`.
bool add_layers(const YAML::Node& node, std::set<std::int64_t>& layers) {
  if (!node.IsScalar()) return false;
  const std::string& text = node.Scalar();
  const std::size_t dash = text.find('-');
  std::int64_t first = 0, last = 0;
  if (!read_number(text.substr(0, dash), first)) return false;
  last = first;
  if (dash != std::string::npos && !read_number(text.substr(dash + 1), last)) return false;
  if (first < 0 || last < first || last >= kMillion) return false;
  for (std::int64_t layer = first; layer <= last; ++layer) layers.insert(layer);
  return true;
}

Key layers_key() {
  Key key{"sites.layers", "all, a layer, a range such as 4-11, or a list of layers and ranges",
          "layers of the model, counted from 0"};
  key.choices = {"all"};
  key.bind = [](JobConfig& config, const std::string&, const YAML::Node& node) {
    config.sites.layers.reset();
    if (node.IsScalar() && node.Scalar() == "all") return true;
    std::set<std::int64_t> layers;
    if (node.IsSequence()) {
      for (const auto& element : node) {
        if (!add_layers(element, layers)) return false;
      }
    } else if (!add_layers(node, layers)) {
      return false;
    }
    if (layers.empty()) return false;
    config.sites.layers.emplace(layers.begin(), layers.end());
    return true;
  };
  key.show = [](const JobConfig& config) {
    return config.sites.layers ? json(*config.sites.layers) : json("all");
  };
  return key;
}

Key evaluate_key() {
  Key key{"data.evaluate.*",
          "a path (names: letters, digits and _, not forget, retain or earlier_…)",
          "further JSONL files that `evaluate` measures, by name"};
  key.standard = "none";
  key.bind = [](JobConfig& config, const std::string& name, const YAML::Node& node) {
    const auto plain = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    if (name.empty() || !std::all_of(name.begin(), name.end(), plain) || name[0] == '_' ||
        (name[0] >= '0' && name[0] <= '9') || is_forgotten(name) || name == "retain" ||
        !node.IsScalar() || node.Scalar().empty()) {
      return false;
    }
    config.data.evaluate[name] = node.Scalar();
    return true;
  };
  key.show = [](const JobConfig& config) {
    json paths = json::object();
    for (const auto& [name, path] : config.data.evaluate) paths[name] = path.string();
    return paths;
  };
  return key;
}

#define MRP_FIELD(member) \
  [](auto& c) -> auto& {  \
    return c.member;      \
  }

std::vector<Key> data_keys() {
  return {path_of("data.forget", MRP_FIELD(data.forget), true, "JSONL records to be forgotten"),
          path_of("data.retain", MRP_FIELD(data.retain), true, "JSONL records to be kept"),
          evaluate_key(),
          choice<std::string>("data.template", MRP_FIELD(data.prompt_template),
                              {{"auto", "auto"}, {"plain", "plain"}},
                              "auto: the tokenizer's chat template if it has one"),
          integer("data.max_tokens", MRP_FIELD(data.max_tokens), 2, kMillion,
                  "longer records are dropped and counted, longer plain texts are cut"),
          real(
              "data.overlap_limit", MRP_FIELD(data.overlap_limit), "a number from 0 to 1",
              [](double x) { return x >= 0 && x <= 1; },
              "accepted share of forget records that are also retain records")};
}

bool is_positive(double x) {
  return x > 0;
}
bool is_not_negative(double x) {
  return x >= 0;
}

std::vector<Key> subspace_keys() {
  using enum solver::Rule;
  using solver::ProjectorKind, solver::Route, solver::Rule;
  return {choice<Rule>("subspace.rule", MRP_FIELD(subspace.rule),
                       {{"gevp", gevp},
                        {"cpca", cpca},
                        {"retain_complement", retain_complement},
                        {"forget_complement", forget_complement},
                        {"forget_pca", forget_pca},
                        {"random", random}},
                       "how the removed directions are chosen"),
          integer("subspace.dimension", MRP_FIELD(subspace.dimension), 1, kMillion,
                  "directions removed at each site; auto: those above the null edge"),
          integer("subspace.max_dimension", MRP_FIELD(subspace.max_dimension), 1, kMillion,
                  "upper limit of an automatic dimension"),
          real("subspace.ridge", MRP_FIELD(subspace.ridge), "a number above 0", is_positive,
               "regularisation, relative to the mean retain variance"),
          real("subspace.alpha", MRP_FIELD(subspace.alpha), "a number, 0 or above", is_not_negative,
               "cpca: weight of the retain covariance"),
          real(
              "subspace.retain_energy", MRP_FIELD(subspace.retain_energy),
              "a number between 0 and 1", [](double x) { return x > 0 && x < 1; },
              "retain_complement: share of the retain variance that is protected"),
          choice<ProjectorKind>(
              "subspace.projector", MRP_FIELD(subspace.projector),
              {{"oblique", ProjectorKind::oblique}, {"orthogonal", ProjectorKind::orthogonal}},
              "oblique changes retain states least"),
          choice<Route>("subspace.route", MRP_FIELD(subspace.route),
                        {{"auto", Route::automatic},
                         {"feature", Route::feature_space},
                         {"sample", Route::sample_space}},
                        "form width × width or tokens × tokens matrices; auto: the cheaper")};
}

std::vector<Key> training_keys() {
  using Train = JobConfig::Train;
  using Loss = JobConfig::ForgetLoss;
  using Retain = JobConfig::RetainLoss;
  using Optimizer = JobConfig::Optimizer;
  return {
      choice<Train>("refine.train", MRP_FIELD(refine.train),
                    {{"none", Train::none},
                     {"subspace", Train::subspace},
                     {"projections", Train::projections},
                     {"lora", Train::lora},
                     {"weights", Train::weights}},
                    "what is trained: changes confined to what the retain set leaves free, the "
                    "projections alone, low-rank changes, or the weights"),
      choice<Loss>("refine.forget_loss", MRP_FIELD(refine.forget_loss),
                   {{"indifference", Loss::indifference},
                    {"counterfactual", Loss::counterfactual},
                    {"unlikelihood", Loss::unlikelihood},
                    {"gradient_ascent", Loss::gradient_ascent},
                    {"grad_diff", Loss::grad_diff},
                    {"npo", Loss::npo},
                    {"simnpo", Loss::simnpo},
                    {"rmu", Loss::rmu},
                    {"uniform", Loss::uniform}},
                   "what forgetting means"),
      choice<Retain>(
          "refine.retain_loss", MRP_FIELD(refine.retain_loss),
          {{"match", Retain::match}, {"cross_entropy", Retain::cross_entropy}, {"kl", Retain::kl}},
          "what keeping means; match: cross entropy and the predictions of the original"),
      real("refine.forget_weight", MRP_FIELD(refine.forget_weight), "a number, 0 or above",
           is_not_negative, "weight of the forget loss"),
      real("refine.retain_weight", MRP_FIELD(refine.retain_weight), "a number, 0 or above",
           is_not_negative, "weight of the retain loss"),
      integer("refine.steps", MRP_FIELD(refine.steps), 1, kMillion, "training steps"),
      real("refine.stop_below", MRP_FIELD(refine.stop_below), "a number, 0 or above",
           is_not_negative,
           "ends training when the mean forget loss of 25 steps, before and after the simulated "
           "attack, is below; 0: all steps"),
      integer("refine.batch", MRP_FIELD(refine.batch), 1, kMillion, "items of each set in a step"),
      real("refine.learning_rate", MRP_FIELD(refine.learning_rate), "a number above 0", is_positive,
           "peak, after 10 steps of warm-up; then linear to 5 % of it"),
      choice<Optimizer>("refine.optimizer", MRP_FIELD(refine.optimizer),
                        {{"adamw", Optimizer::adamw}, {"sgd", Optimizer::sgd}},
                        "adamw: without weight decay")};
}

/// What confines and guards a training.
std::vector<Key> guard_keys() {
  return {
      real("refine.softness", MRP_FIELD(refine.softness), "a number above 0", is_positive,
           "train subspace: small keeps changes away from what the retain set uses"),
      real("refine.output_softness", MRP_FIELD(refine.output_softness), "a number, 0 or above",
           is_not_negative,
           "train subspace: small keeps changes away from outputs on which the predictions of the "
           "samples (without samples: of the retain set) hang; 0: outputs are not confined; auto: "
           "0.1 where half of the forget items or more ask for a letter, else 0"),
      integer("refine.directions", MRP_FIELD(refine.directions), 0, kMillion,
              "train subspace: how many directions of a site a change may use, those that tell "
              "forget from retain best; 0: all, weighed by softness"),
      real(
          "refine.shrink", MRP_FIELD(refine.shrink), "a number from 0 to 1",
          [](double x) { return x >= 0 && x <= 1; },
          "train subspace: share of what the retain set leaves free that is gone when training "
          "begins"),
      integer(
          "refine.grow_rounds", MRP_FIELD(refine.grow_rounds), 0, kMillion,
          "how often a projection grows at the input of each layer that is trained: before every "
          "25th step, by what tells forget from retain best then; not with train projections"),
      integer("refine.grow_directions", MRP_FIELD(refine.grow_directions), 1, kMillion,
              "directions by which a projection grows each time; of a site that is split between "
              "tensor ranks, their share of each rank"),
      words("refine.modules", MRP_FIELD(refine.modules), {"qkv", "o_proj", "gate_up", "down_proj"},
            "linear layers that are trained"),
      integer("refine.lora_rank", MRP_FIELD(refine.lora_rank), 1, kMillion, "rank of train lora"),
      flag("refine.lora_confined", MRP_FIELD(refine.lora_confined),
           "train lora: inside what the retain set leaves free"),
      integer("refine.samples", MRP_FIELD(refine.samples), 0, kMillion,
              "texts drawn from the original model whose predictions are kept; 0: none"),
      integer("refine.sample_batch", MRP_FIELD(refine.sample_batch), 1, kMillion,
              "samples in a step"),
      real("refine.sample_weight", MRP_FIELD(refine.sample_weight), "a number, 0 or above",
           is_not_negative, "weight of the match on samples"),
      integer("refine.sample_tokens", MRP_FIELD(refine.sample_tokens), 8, kMillion,
              "largest length of a sample"),
      integer("refine.tamper_resistance", MRP_FIELD(refine.tamper_resistance), 0, kMillion,
              "steps of a simulated attack, one beside each training step, at half of the "
              "learning rate to all of it; 0: none"),
      real(
          "refine.tamper_weight", MRP_FIELD(refine.tamper_weight), "a number, 0 or above",
          is_not_negative,
          "weight of the forget loss after the simulated attack; over the second half of the steps "
          "it moves to the loss before one"),
      flag("refine.agree_signs", MRP_FIELD(refine.agree_signs),
           "move only where forget and retain gradients have one sign (MUDMAN, arXiv 2506.12484)")};
}

Key preset_key() {
  return choice<Preset>(
      "preset", MRP_FIELD(preset),
      {{"reliable", Preset::reliable}, {"fast", Preset::fast}, {"paper", Preset::paper}},
      "sets the defaults of the other keys: trained and attack-proof; closed form; as published");
}

std::vector<Key> relearn_keys() {
  return {words("relearn.attackers", MRP_FIELD(relearn.attackers),
                {"qv_lora", "all_weights", "benign", "int8", "int4"},
                "fine-tuning on half of the forget set (two ways), on the retain set, rounding"),
          ascending<std::int64_t>("relearn.steps", MRP_FIELD(relearn.steps), 1,
                                  "a list of ascending integers above 0",
                                  "of the attackers' training, after which they are scored"),
          ascending<double>("relearn.learning_rates", MRP_FIELD(relearn.learning_rates), 1e-12,
                            "a list of ascending numbers above 0", "of the attackers"),
          ascending<std::int64_t>("relearn.seeds", MRP_FIELD(relearn.seeds), 0,
                                  "a list of ascending integers, 0 or above",
                                  "random halves of the forget set, each attacked both ways")};
}

std::vector<Key> evaluate_keys() {
  std::vector<Key> keys = {
      path_of("evaluate.control", MRP_FIELD(evaluate.control), false,
              "checkpoint trained without the forget set, measured beside the others"),
      word("evaluate.holdout", MRP_FIELD(evaluate.holdout), "a name of data.evaluate",
           "set like the forget set that no model saw; gives the membership scores")};
  for (Key& key : keys) key.standard = "none";
  keys.push_back(flag("evaluate.generate", MRP_FIELD(evaluate.generate),
                      "let the models answer every prompt, and score that by ROUGE-L"));
  return keys;
}

std::vector<Key> make_keys() {
  std::vector<Key> all;
  const auto add = [&](std::vector<Key> more) {
    std::move(more.begin(), more.end(), std::back_inserter(all));
  };
  add({preset_key()});
  add({path_of("continue", MRP_FIELD(continued), false,
               "instead of model: unlearned checkpoint, or work directory of its job, that this "
               "further request goes on from")});
  all.back().standard = "none";
  add({path_of("model", MRP_FIELD(model), true, "checkpoint in the Hugging Face layout"),
       path_of("output", MRP_FIELD(output), true, "directory of the unlearned checkpoint"),
       path_of("work", MRP_FIELD(work), false, "directory of everything in between")});
  all.back().standard = "<output>.work";
  add(data_keys());
  add({words("sites.modules", MRP_FIELD(sites.modules),
             {"qkv.input", "o_proj.input", "gate_up.input", "down_proj.input", "o_proj.output",
              "down_proj.output", "stream.output"},
             "where in a layer"),
       layers_key(),
       choice<shard::Positions>(
           "sites.positions", MRP_FIELD(sites.positions),
           {{"target", shard::Positions::target}, {"all", shard::Positions::all}},
           "token positions whose states count: those that predict the answer, or all"),
       integer("sites.samples", MRP_FIELD(sites.samples), 0, kMillion,
               "texts drawn from the original model whose states count as much as those of the "
               "retain set; 0: none")});
  add(subspace_keys());
  add({flag("project", MRP_FIELD(project), "find projections and fold them into the weights")});
  add(training_keys());
  add(guard_keys());
  add({choice<shard::Rounding>(
      "merge.rounding", MRP_FIELD(merge.rounding),
      {{"error_feedback", shard::Rounding::error_feedback}, {"nearest", shard::Rounding::nearest}},
      "how folded weights return to their stored type")});
  add(evaluate_keys());
  add(relearn_keys());
  add({integer("parallel.tensor", MRP_FIELD(parallel.tensor), 1, kMillion,
               "ranks that share one copy of the model, the rest is data parallel; auto: "
               "those of a node"),
       integer("parallel.batch_tokens", MRP_FIELD(parallel.batch_tokens), 1, 100 * kMillion,
               "tokens of a batch, padding included; auto: 4096, down to 1024 for wide "
               "models on a processor"),
       choice<std::optional<shard::Residency>>("parallel.residency", MRP_FIELD(parallel.residency),
                                               {{"auto", std::nullopt},
                                                {"full", shard::Residency::full},
                                                {"layer", shard::Residency::layer}},
                                               "of the weights in capture: all layers in memory or "
                                               "one at a time; auto: layer where all do not fit"),
       choice<Device>("device", MRP_FIELD(device),
                      {{"auto", Device::automatic}, {"cpu", Device::cpu}, {"cuda", Device::cuda}},
                      "auto: CUDA where a GPU is visible"),
       choice<Compute>(
           "compute", MRP_FIELD(compute),
           {{"auto", Compute::automatic}, {"bf16", Compute::bf16}, {"fp32", Compute::fp32}},
           "type of the products; auto: bf16 where the processor multiplies it fastest"),
       integer("seed", MRP_FIELD(seed), 0, std::int64_t{1} << 62, "of everything random")});
  return all;
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> all = make_keys();
  return all;
}

}  // namespace mrp::jobs
