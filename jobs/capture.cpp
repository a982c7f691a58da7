#include "shard/capture.hpp"

#include <fmt/format.h>

#include <optional>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"

namespace mrp::jobs {
void capture(Job& job) {
  const auto [checkpoint, config] = open_checkpoint(job.config.model, *job.world);
  io::TokenDataset tokens = read_tokens(job, config);
  const dist::ParallelLayout layout = make_layout(job, config);

  shard::CaptureOptions options;
  options.sets = {"forget", "retain"};
  if (job.config.sites.samples > 0) {
    options.sets.push_back("samples");
    tokens.sets.insert_or_assign("samples", dist::agree(*job.world, [&] {
                                   return read_samples(job, config, job.config.sites.samples);
                                 }));
  }
  options.sites = make_sites(job.config, config);
  options.positions = job.config.sites.positions;
  options.fingerprint = job.expected.at("capture");
  dist::log::info(fmt::format("capture: {} sites, {} to {}", options.sites.size(),
                              options.sites.front().name(), options.sites.back().name()));

  shard::ModelOptions model_settings = model_options(job);
  model_settings.layers = options.sites.back().layer + 1;
  model_settings.head = false;
  model_settings.residency = residency(job, config, layout.tensor().size(), model_settings);
  if (model_settings.residency == shard::Residency::layer) {
    dist::log::info("capture: layers are read one by one");
  }
  std::optional<shard::CausalLM> model;
  {
    const dist::Timers::Scope scope(job.timers, "load");
    model.emplace(checkpoint, config, layout, model_settings);
  }
  options.batch_tokens = batch_tokens(job.config, *model);
  shard::capture(*model, layout, tokens, options, job.work.states(), job.timers);
}

}  // namespace mrp::jobs
