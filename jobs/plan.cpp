#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/file.hpp"
#include "jobs/cost.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/stages.hpp"
#include "shard/edit/edit_plan.hpp"
#include "shard/model/architecture.hpp"
#include "solver/blas.hpp"
#include "solver/threads.hpp"

namespace mrp::jobs {
namespace {

/// Floating-point operations a second of one rank while all compute.
struct Speed {
  double products = 0;  ///< in the type of the job
  double wide = 0;      ///< fp64
};

/// The best of a few runs.
template <class Work>
double best_seconds(Work&& work) {
  double best = 1e30;
  for (int run = 0; run < 4; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  return best;
}

/// Collective over the world: the slowest rank.
Speed measure_speed(const Job& job, const shard::ModelOptions& options) {
  constexpr std::int64_t n = 1024;
  constexpr double operations = 2.0 * n * n * n;
  const torch::InferenceMode inference;
  at::set_num_threads(job.threads);
  solver::set_threads(job.threads);
  const auto type = torch::TensorOptions(options.dtype).device(options.device);
  const torch::Tensor a = torch::ones({n, n}, type), b = torch::ones({n, n}, type);
  const std::vector<double> x(n * n, 1.0);
  std::vector<double> y(n * n);
  job.world->barrier();
  // One number leaves the device: its work is done by then.
  Speed speed{operations / best_seconds([&] { torch::linear(a, b)[0][0].item<float>(); }),
              operations / best_seconds([&] {
                solver::gemm(solver::Op::none, solver::Op::none, n, n, n, 1, x.data(), n, x.data(),
                             n, 0, y.data(), n);
              })};
  speed.products = job.world->all_reduce(speed.products, dist::ReduceOp::min);
  speed.wide = job.world->all_reduce(speed.wide, dist::ReduceOp::min);
  return speed;
}

/// Tensors that merge will change, and what is not exact about it.
struct Touched {
  std::set<std::string> tensors;
  std::vector<std::string> notes;
};

Touched find_touched(const Job& job, const io::Checkpoint& checkpoint,
                     const io::ModelConfig& model) {
  Touched touched;
  if (folds(job)) {
    io::SubspaceFile file;
    for (const shard::Site& site : make_sites(job.config, model)) {
      const std::int64_t width = site.width(model);
      const std::vector<double> any(static_cast<std::size_t>(width));
      file.sites[site.name()] = {site.name(), width, 1, any, any, {0}, 0, 0, 0};
    }
    const auto plan = shard::make_edit_plan(checkpoint, model, file);
    for (const auto& edit : plan.edits) touched.tensors.insert(edit.tensor);
    touched.notes = plan.notes;
  }
  if (job.config.refine.train == JobConfig::Train::none) return touched;
  const shard::Architecture& names = shard::find_architecture(model);
  const std::map<std::string, std::vector<std::string_view>> modules = {
      {"qkv", {names.q_proj, names.k_proj, names.v_proj}},
      {"o_proj", {names.o_proj}},
      {"gate_up", {names.gate_proj, names.up_proj}},
      {"down_proj", {names.down_proj}}};
  for (const std::string& module : job.config.refine.modules) {
    for (std::int64_t layer = 0; layer < model.layers; ++layer) {
      for (const auto name : modules.at(module)) {
        touched.tensors.insert(names.in_layer(layer, name) + ".weight");
      }
    }
  }
  return touched;
}

std::string amount(double value, const char* unit) {
  if (value <= 0) return "-";
  constexpr std::array prefixes = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t i = 0;
  for (; value >= 1000 && i + 1 < prefixes.size(); ++i) value /= 1000;
  return fmt::format("{:.3g} {}{}", value, prefixes[i], unit);
}

nlohmann::json to_json(const std::vector<StageCost>& costs, const Touched& touched,
                       const Speed& speed) {
  nlohmann::json stages;
  for (const StageCost& cost : costs) {
    stages[cost.stage] = {
        {"operations", cost.operations}, {"wide", cost.wide}, {"read", cost.read},
        {"written", cost.written},       {"sent", cost.sent}, {"memory", cost.memory}};
  }
  return {{"stages", stages},
          {"tensors", touched.tensors},
          {"speed", {{"products", speed.products}, {"wide", speed.wide}}}};
}

std::string cost_table(const std::vector<StageCost>& costs, const Speed& speed, int ranks) {
  std::string text =
      fmt::format("{:<10}{:>14}{:>12}{:>10}{:>10}{:>14}{:>16}\n", "stage", "operations", "at least",
                  "read", "written", "sent, a rank", "memory, a rank");
  text += std::string(text.size() - 1, '-') + "\n";
  for (const StageCost& cost : costs) {
    const double seconds =
        ((cost.operations - cost.wide) / speed.products + cost.wide / speed.wide) / ranks;
    text += fmt::format(
        "{:<10}{:>14}{:>12}{:>10}{:>10}{:>14}{:>16}\n", cost.stage, amount(cost.operations, "FLOP"),
        seconds < 0.1 ? "-" : fmt::format("{:.1f} s", seconds), amount(cost.read, "B"),
        amount(cost.written, "B"), amount(cost.sent, "B"), amount(cost.memory, "B"));
  }
  return text;
}

/// A line of what is needed beside what there is. Adds to `missing` if that is too little.
std::string compare(const std::string& what, double needed, double available,
                    std::vector<std::string>& missing) {
  if (needed > available) missing.push_back(what);
  return fmt::format("{}: {} needed, {} available{}\n", what, amount(needed, "B"),
                     amount(available, "B"), needed > available ? "  TOO LITTLE" : "");
}

/// @throws ResourceError if something is too little.
void print_needs(const Job& job, const std::vector<StageCost>& costs, double memory) {
  std::vector<std::string> missing;
  double largest = 0, output = 0;
  for (const StageCost& cost : costs) {
    largest = std::max(largest, cost.memory);
    if (cost.stage == "merge") output = cost.written;
  }
  const auto space = [](const std::filesystem::path& path) {
    return static_cast<double>(io::free_space(path));
  };
  fmt::print("{}", compare("memory of a rank", largest, memory, missing));
  fmt::print("{}", compare("disk at work", work_bytes(costs), space(job.config.work), missing));
  fmt::print("{}", compare("disk at output", output, space(job.config.output), missing));
  if (missing.empty()) return;
  throw dist::ResourceError(
      fmt::format("this job does not fit here: too little {}; use more ranks or nodes, or another "
                  "place",
                  fmt::join(missing, " and ")));
}

Spread make_spread(const Job& job, const io::ModelConfig& model, const shard::ModelOptions& options,
                   int ranks) {
  Spread spread;
  spread.tensor = tensor_size(job, model, ranks);
  if (ranks % spread.tensor != 0) {
    throw dist::UsageError(
        fmt::format("parallel.tensor is {}, which does not divide {} ranks", spread.tensor, ranks));
  }
  spread.data = ranks / spread.tensor;
  spread.device = options.device;
  spread.dtype = options.dtype;
  spread.memory = memory_share(*job.world);
  spread.residency = residency(job, model, spread.tensor, options);
  spread.recompute = recomputes_layers(job, model, spread.tensor, options);
  return spread;
}

}  // namespace

void plan(Job& job, int ranks, bool as_json) {
  if (ranks == 0) ranks = job.world->size();
  require_inputs(job, all_stages(), "plan", {"prepare"});
  const auto [checkpoint, model] = open_checkpoint(job.config.model, *job.world);
  const io::TokenDataset tokens = read_tokens(job, model);
  const shard::ModelOptions options = model_options(job);
  const Speed speed = measure_speed(job, options);
  const Spread spread = make_spread(job, model, options, ranks);
  dist::agree(*job.world, [&] {
    if (!job.world->is_root()) return;
    const auto costs = stage_costs(job, checkpoint, model, tokens, spread);
    const Touched touched = find_touched(job, checkpoint, model);
    if (as_json) {
      fmt::print("{}\n", to_json(costs, touched, speed).dump(2));
      return;
    }
    fmt::print("{} ranks = {} data × {} tensor, {} threads each, {}, {}\n\n", ranks, spread.data,
               spread.tensor, job.threads, spread.device.str(),
               spread.dtype == torch::kBFloat16 ? "bf16" : "fp32");
    fmt::print("{}\n", cost_table(costs, speed, ranks));
    fmt::print("at least: the products alone, at {} and, in fp64, {} a rank, measured here\n",
               amount(speed.products, "FLOP/s"), amount(speed.wide, "FLOP/s"));
    fmt::print("merge changes {} of {} tensors\n", touched.tensors.size(),
               checkpoint.names().size());
    for (const std::string& note : touched.notes) fmt::print("  {}\n", note);
    print_needs(job, costs, static_cast<double>(spread.memory));
  });
}

}  // namespace mrp::jobs
