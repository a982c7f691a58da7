#include "shard/train/second_moments.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/utils.h>

#include <algorithm>
#include <optional>

#include "dist/log.hpp"
#include "shard/batches.hpp"
#include "shard/train/examples.hpp"
#include "shard/train/optimizer.hpp"
#include "shard/train/pass.hpp"
#include "shard/train/replaced_weights.hpp"

namespace mrp::shard {
namespace {

/// A rank that gets no sequence takes part in the sums all the same.
std::map<Site, torch::Tensor> no_moments(CausalLM& model) {
  std::map<Site, torch::Tensor> moments;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input || moments.contains(*parameter.input)) continue;
    const std::int64_t width = parameter.value->size(1);
    const auto fp32 = parameter.value->options().dtype(torch::kFloat32).requires_grad(false);
    moments[*parameter.input] = torch::zeros({width, width}, fp32);
  }
  return moments;
}

/// Neighbours, up to 16 and `batch_tokens`, until 2048 are covered: the same for any number of
/// ranks.
std::vector<dist::Range> gradient_batches(const io::Sequences& sequences,
                                          std::int64_t batch_tokens) {
  constexpr std::int64_t kMost = 2048, kBatch = 16;
  std::vector<dist::Range> batches;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < std::min(sequences.count(), kMost); ++i) {
    tokens += sequences.length(i);
    if (batches.empty() || batches.back().size() == kBatch || tokens > batch_tokens) {
      batches.push_back({i, i});
      tokens = sequences.length(i);
    }
    batches.back().end = i + 1;
  }
  return batches;
}

/// Zero, of the blocks of rows of a weight.
std::vector<torch::Tensor> no_row_moments(const Parameter& parameter) {
  std::vector<torch::Tensor> moments;
  const auto fp32 = parameter.value->options().dtype(torch::kFloat32).requires_grad(false);
  for (const WeightBlock& block : parameter.blocks) {
    moments.push_back(torch::zeros({block.rows.size(), block.rows.size()}, fp32));
  }
  return moments;
}

/// Collective over the tensor ranks. Adds G Gᵀ of what a weight has gathered, and clears that.
void add_gradient(const Parameter& parameter, std::vector<torch::Tensor>& moments) {
  const torch::NoGradGuard no_grad;
  share_gradient(parameter);
  torch::Tensor& gradient = parameter.value->mutable_grad();
  if (!gradient.defined()) return;
  std::int64_t row = 0;
  for (torch::Tensor& block : moments) {
    const torch::Tensor g = gradient.narrow(0, row, block.size(0)).to(torch::kFloat32);
    block.addmm_(g, g.t());
    row += block.size(0);
  }
  gradient = torch::Tensor();
}

}  // namespace

std::map<Site, torch::Tensor> input_moments(CausalLM& model, const dist::ParallelLayout& layout,
                                            const io::TokenSet& set, std::int64_t batch_tokens) {
  const torch::NoGradGuard no_grad;
  const io::Sequences& sequences = set.items;
  std::map<Site, torch::Tensor> moments = no_moments(model);
  torch::Tensor real;  // rows of the batch that are no padding
  const SiteHook hook = [&](const Site& site, const torch::Tensor& states) {
    if (site.side == Side::input) {
      const torch::Tensor rows = states.flatten(0, 1).index_select(0, real).to(torch::kFloat32);
      moments.at(site).addmm_(rows.t(), rows);
    }
    return std::optional<torch::Tensor>();
  };
  const BatchPlan plan =
      plan_batches(sequences, all_items(sequences.count()), layout.data().size(), batch_tokens);
  dist::log::Progress progress(fmt::format("moments {}", set.name), std::ssize(sequences.token_ids),
                               "tokens");
  for (std::int64_t round = 0; round < plan.rounds(); ++round) {
    const auto members = plan.members(plan.batch(layout.data().rank(), round));
    if (!members.empty()) {
      const torch::Tensor tokens = pad(sequences, members);
      std::vector<std::int64_t> rows;
      for (std::size_t i = 0; i < members.size(); ++i) {
        for (std::int64_t t = 0; t < sequences.length(members[i]); ++t) {
          rows.push_back(static_cast<std::int64_t>(i) * tokens.size(1) + t);
        }
      }
      real = torch::tensor(rows, torch::kInt64).to(model.options().device);
      model.hidden_states(tokens, hook);
    }
    progress.advance(round_tokens(plan, sequences, round));
  }
  const auto rows = static_cast<double>(sequences.token_ids.size());
  for (auto& [site, sum] : moments) {
    sum_over(layout.data(), sum);
    sum /= rows;
  }
  return moments;
}

std::map<std::string, std::vector<torch::Tensor>> gradient_moments(
    CausalLM& model, const dist::ParallelLayout& layout, const io::TokenSet& set,
    const std::vector<SiteModule>& modules, std::int64_t batch_tokens) {
  const Examples examples(set);
  const ReplacedWeights linears(model, modules,
                                [](const torch::Tensor& w) { return w.detach().requires_grad_(); });
  std::map<std::string, std::vector<torch::Tensor>> moments;
  for (const Parameter& parameter : linears.parameters()) {
    moments[parameter.name] = no_row_moments(parameter);
  }
  const std::vector<dist::Range> batches = gradient_batches(set.items, batch_tokens);
  const std::int64_t count = batches.empty() ? 0 : batches.back().end;
  dist::log::Progress progress(fmt::format("gradient moments {}", set.name), count, "sequences");
  const auto own = static_cast<std::size_t>(layout.data().rank());
  for (std::size_t b = 0; b < batches.size(); ++b) {
    progress.advance(batches[b].size());
    if (b % static_cast<std::size_t>(layout.data().size()) != own) continue;
    std::vector<Example> batch;
    for (std::int64_t i = batches[b].begin; i < batches[b].end; ++i) {
      batch.push_back(examples.item(i));
    }
    log_probability(run(model, batch)).sum().backward();
    for (const Parameter& parameter : linears.parameters()) {
      add_gradient(parameter, moments.at(parameter.name));
    }
  }
  for (const Parameter& parameter : linears.parameters()) {
    for (torch::Tensor& block : moments.at(parameter.name)) {
      sum_over(layout.data(), block);
      // Each rank has gone over its own columns.
      if (parameter.input->is_split()) block = model.collectives().all_reduce(block);
    }
  }
  return moments;
}

}  // namespace mrp::shard
