#include "jobs/refine_setup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/subspace_store.hpp"
#include "jobs/confinement.hpp"
#include "jobs/model_setup.hpp"
#include "shard/train/second_moments.hpp"
#include "solver/threads.hpp"

namespace mrp::jobs {
namespace {

using Train = JobConfig::Train;
using Forget = JobConfig::ForgetLoss;

shard::TrainForm train_form(Train train) {
  switch (train) {
    case Train::projections:
      return shard::TrainForm::projections;
    case Train::lora:
      return shard::TrainForm::lora;
    case Train::weights:
      return shard::TrainForm::weights;
    default:
      return shard::TrainForm::subspace;
  }
}

shard::Loss forget_loss(Forget loss) {
  switch (loss) {
    case Forget::counterfactual:
      return shard::counterfactual;
    case Forget::unlikelihood:
      return shard::unlikelihood;
    case Forget::gradient_ascent:
    case Forget::grad_diff:
      return shard::gradient_ascent;
    case Forget::npo:
      return shard::npo;
    case Forget::simnpo:
      return shard::simnpo;
    case Forget::rmu:
      return shard::rmu;
    case Forget::uniform:
      return shard::uniform;
    default:
      return shard::indifference;
  }
}

shard::Loss retain_loss(JobConfig::RetainLoss loss) {
  switch (loss) {
    case JobConfig::RetainLoss::cross_entropy:
      return shard::cross_entropy;
    case JobConfig::RetainLoss::kl:
      return shard::kl_to_base;
    default:
      return shard::cross_entropy_and_match;
  }
}

/// The directions that solve found, of a split site this rank's block: one projection for each
/// shard needs no communication.
std::map<shard::Site, torch::Tensor> initial_projections(const Job& job,
                                                         const dist::ParallelLayout& layout) {
  std::map<shard::Site, torch::Tensor> initial;
  const auto file =
      dist::agree(*job.world, [&] { return io::SubspaceFile::read(job.work.subspaces()); });
  for (const auto& [name, found] : file.sites) {
    if (found.k == 0) continue;
    const shard::Site site = shard::Site::parse(name);
    const torch::Tensor a = local_rows(found.a, found.width, site, layout);
    initial[site] = std::get<0>(torch::linalg_qr(a)).to(torch::kFloat32).contiguous();
  }
  dist::agree(*job.world, [&] {
    if (!initial.empty()) return;
    throw dist::InputError(
        "refine.train projections: no site has directions to start from; set "
        "subspace.dimension, or train: subspace");
  });
  return initial;
}

/// solve(keys, solvers) of all problems: of those that are the same on all ranks among all ranks,
/// of those that each tensor rank has of its own (`split`) among its data ranks. Collective over
/// the world.
template <class Key, class Split, class Solve>
auto spread(const std::map<Key, torch::Tensor>& moments, const Split& split, const Job& job,
            const dist::ParallelLayout& layout, const Solve& solve) {
  const std::uint64_t memory = memory_share(*job.world) / 2;
  const auto solve_those = [&](bool own) {
    std::vector<Key> keys;
    for (const auto& [key, of_key] : moments) {
      if (split(key) == own) keys.push_back(key);
    }
    return std::pair(keys, solve(keys, Solvers{own ? layout.data() : layout.world(), memory}));
  };
  std::map<Key, typename decltype(solve_those(true).second)::value_type> result;
  for (const bool own : {false, true}) {
    auto [keys, found] = solve_those(own);
    for (std::size_t i = 0; i < keys.size(); ++i) result[keys[i]] = std::move(found[i]);
  }
  return result;
}

bool is_split(const shard::Site& site) {
  return site.is_split();
}

template <class Key>
std::vector<torch::Tensor> pick(const std::map<Key, torch::Tensor>& moments,
                                const std::vector<Key>& keys) {
  std::vector<torch::Tensor> picked;
  for (const Key& key : keys) picked.push_back(moments.at(key));
  return picked;
}

/// T of each weight, by its blocks of rows; of none where `softness` is 0. Collective over the
/// world.
std::map<std::string, std::vector<shard::Confinement>> confine_outputs(
    const Job& job, shard::CausalLM& model, const dist::ParallelLayout& layout,
    const io::TokenSet& predicted, const std::vector<shard::SiteModule>& modules, double softness) {
  std::map<std::string, std::vector<shard::Confinement>> outputs;
  if (softness == 0) return outputs;
  dist::log::info(fmt::format("refine: outputs are confined, softness {}", softness));
  using Block = std::pair<std::string, std::size_t>;
  std::map<Block, torch::Tensor> moments;
  for (auto& [name, blocks] : shard::gradient_moments(model, layout, predicted, modules,
                                                      batch_tokens(job.config, model))) {
    for (std::size_t b = 0; b < blocks.size(); ++b) moments[{name, b}] = blocks[b];
  }
  // Rows are split where columns are not.
  std::set<std::string> whole;
  for (const shard::Parameter& parameter : model.parameters()) {
    if (parameter.input && parameter.input->is_split()) whole.insert(parameter.name);
  }
  const auto split = [&](const Block& block) { return !whole.contains(block.first); };
  auto found = spread(moments, split, job, layout, [&](const auto& blocks, auto solvers) {
    return soft_confinements(pick(moments, blocks), softness, solvers);
  });
  for (auto& [block, t] : found) outputs[block.first].push_back(std::move(t));
  return outputs;
}

/// Of the projections that grow, of which something must be left at every site. Collective over the
/// world. @throws UsageError.
std::int64_t kernel_columns(const Job& job, shard::CausalLM& model) {
  const auto& refine = job.config.refine;
  const std::int64_t columns = refine.grow_rounds * refine.grow_directions;
  dist::agree(*job.world, [&] {
    for (const shard::Parameter& parameter : model.parameters()) {
      if (!parameter.input || columns < parameter.value->size(1)) continue;
      throw dist::UsageError(
          fmt::format("projections that grow {} times by {} directions leave nothing of {}, which "
                      "has {} on a rank; lower refine.grow_rounds or refine.grow_directions",
                      refine.grow_rounds, refine.grow_directions, parameter.input->name(),
                      parameter.value->size(1)));
    }
  });
  return columns;
}

}  // namespace

shard::Site input_site(const std::string& module) {
  return shard::Site::parse("layers.0." + module + ".input");
}

double output_softness(const JobConfig& config, const io::TokenSet& forget) {
  constexpr double kWithLetters = 0.1;
  if (config.refine.output_softness) return *config.refine.output_softness;
  std::int64_t letters = 0;
  for (std::int64_t i = 0; i < forget.items.count(); ++i) letters += forget.asks_for_letter(i);
  return 2 * letters >= forget.items.count() ? kWithLetters : 0.0;
}

shard::TrainableOptions trainable_options(const Job& job, shard::CausalLM& model,
                                          const dist::ParallelLayout& layout,
                                          const io::TokenSet& forget, const io::TokenSet& kept,
                                          const io::TokenSet& predicted) {
  const auto& refine = job.config.refine;
  shard::TrainableOptions options;
  options.form = train_form(refine.train);
  options.rank = refine.lora_rank;
  options.seed = job.config.seed;
  options.kernel = kernel_columns(job, model);
  for (const std::string& name : refine.modules) options.modules.push_back(input_site(name).module);
  if (refine.train == Train::projections) {
    options.projections = initial_projections(job, layout);
    return options;
  }
  const bool confined =
      refine.train == Train::subspace || (refine.train == Train::lora && refine.lora_confined);
  if (!confined) return options;
  options.shrink = refine.shrink;
  solver::set_threads(job.threads);
  const std::int64_t tokens = batch_tokens(job.config, model);
  const auto moments_of = [&](const io::TokenSet& set) {
    return shard::input_moments(model, layout, set, tokens);
  };
  if (refine.train == Train::subspace) {
    options.outputs = confine_outputs(job, model, layout, predicted, options.modules,
                                      output_softness(job.config, forget));
  }
  const auto kept_moments = moments_of(kept);
  if (refine.train == Train::subspace && refine.directions > 0) {
    const auto forget_moments = moments_of(forget);
    options.bases =
        spread(kept_moments, is_split, job, layout, [&](const auto& sites, auto solvers) {
          return low_subspaces(pick(forget_moments, sites), pick(kept_moments, sites),
                               refine.directions, solvers);
        });
  } else {
    options.confinement =
        spread(kept_moments, is_split, job, layout, [&](const auto& sites, auto solvers) {
          return soft_confinements(pick(kept_moments, sites), refine.softness, solvers);
        });
  }
  return options;
}

std::function<void(std::int64_t)> growth(const Job& job, shard::CausalLM& model,
                                         const dist::ParallelLayout& layout,
                                         shard::Trainable& trainable, const io::TokenSet& forget,
                                         const io::TokenSet& kept) {
  const std::int64_t k = job.config.refine.grow_directions;
  const auto moments_of = [&](const io::TokenSet& set) {
    const auto all = shard::input_moments(model, layout, set, batch_tokens(job.config, model));
    std::map<shard::Site, torch::Tensor> left;
    for (const auto& [site, grown] : trainable.grown()) {
      left[site] = grown.apply(grown.apply(all.at(site)).t());  // P C Pᵀ
    }
    return left;
  };
  const std::int64_t share = std::max<std::int64_t>(k / layout.tensor().size(), 1);
  return [&, moments_of, k, share](std::int64_t round) {
    solver::set_threads(job.threads);
    const auto of_forget = moments_of(forget), of_kept = moments_of(kept);
    const auto added = spread(of_kept, is_split, job, layout, [&](const auto& sites, auto solvers) {
      const bool own = !sites.empty() && is_split(sites.front());
      return low_projectors(pick(of_forget, sites), pick(of_kept, sites), own ? share : k, solvers);
    });
    trainable.grow(added, round);
  };
}

std::filesystem::path refine_state(const Job& job) {
  return job.work.directory() /
         fmt::format("refine.{}.{}", job.expected.at("refine"), job.world->size());
}

shard::RefineOptions refine_options(const Job& job, const shard::CausalLM& model) {
  const auto& refine = job.config.refine;
  shard::RefineOptions options;
  options.steps = refine.steps;
  options.stop_below = refine.stop_below;
  options.learning_rate = refine.learning_rate;
  options.batch = refine.batch;
  options.forget_loss = forget_loss(refine.forget_loss);
  options.forget_weight = refine.forget_weight;
  options.retain_loss = retain_loss(refine.retain_loss);
  options.retain_weight = refine.retain_weight;
  options.sample_batch = refine.sample_batch;
  options.sample_weight = refine.sample_weight;
  options.tamper_steps = refine.tamper_resistance;
  options.tamper_weight = refine.tamper_weight;
  options.agree_signs = refine.agree_signs;
  options.rounds = refine.grow_rounds;
  options.optimizer.kind = refine.optimizer == JobConfig::Optimizer::sgd
                               ? shard::OptimizerKind::sgd
                               : shard::OptimizerKind::adamw;
  options.batch_tokens = batch_tokens(job.config, model);
  options.seed = job.config.seed;
  options.state = refine_state(job);
  return options;
}

}  // namespace mrp::jobs
