#include "jobs/refine_setup.hpp"

#include <fmt/format.h>

#include <utility>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/subspace_store.hpp"
#include "jobs/model_setup.hpp"
#include "shard/train/confine.hpp"

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
    torch::Tensor a = torch::tensor(found.a, torch::kFloat64).view({found.width, found.k});
    if (site.is_split() && site.side == shard::Side::input) {
      const dist::Range own =
          dist::slice(found.width, layout.tensor().size(), layout.tensor().rank());
      a = a.narrow(0, own.begin, own.size());
    }
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
  for (const std::string& name : refine.modules) options.modules.push_back(input_site(name).module);
  if (refine.train == Train::projections) {
    options.projections = initial_projections(job, layout);
    return options;
  }
  const bool confined =
      refine.train == Train::subspace || (refine.train == Train::lora && refine.lora_confined);
  if (!confined) return options;
  options.shrink = refine.shrink;
  const std::int64_t tokens = batch_tokens(job.config, model);
  const auto moments_of = [&](const io::TokenSet& set) {
    return shard::input_moments(model, layout, set, tokens);
  };
  const double softness = output_softness(job.config, forget);
  if (refine.train == Train::subspace && softness > 0) {
    dist::log::info(fmt::format("refine: outputs are confined, softness {}", softness));
    const auto gradients =
        shard::gradient_moments(model, layout, predicted, options.modules, tokens);
    for (const auto& [name, blocks] : gradients) {
      for (const torch::Tensor& moments : blocks) {
        options.outputs[name].push_back(shard::soft_confinement(moments, softness));
      }
    }
  }
  const auto kept_moments = moments_of(kept);
  if (refine.train == Train::subspace && refine.directions > 0) {
    for (const auto& [site, moments] : moments_of(forget)) {
      options.bases[site] = shard::low_subspace(moments, kept_moments.at(site), refine.directions);
    }
    return options;
  }
  for (const auto& [site, moments] : kept_moments) {
    options.confinement[site] = shard::soft_confinement(moments, refine.softness);
  }
  return options;
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
  options.optimizer.kind = refine.optimizer == JobConfig::Optimizer::sgd
                               ? shard::OptimizerKind::sgd
                               : shard::OptimizerKind::adamw;
  options.batch_tokens = batch_tokens(job.config, model);
  options.seed = job.config.seed;
  options.state = refine_state(job);
  return options;
}

}  // namespace mrp::jobs
