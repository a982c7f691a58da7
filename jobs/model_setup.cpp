#include "jobs/model_setup.hpp"

#include <fmt/format.h>
#include <torch/cuda.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/file.hpp"
#include "jobs/model_size.hpp"
#include "shard/batches.hpp"
#include "shard/model/architecture.hpp"

namespace mrp::jobs {
namespace {

void check_vocabulary(const std::string& set, const io::Sequences& sequences,
                      const io::ModelConfig& model) {
  const auto largest = std::max_element(sequences.token_ids.begin(), sequences.token_ids.end());
  if (largest == sequences.token_ids.end() || *largest < model.vocab_size) return;
  throw dist::InputError(fmt::format(
      "set {} holds token {}, but the model knows {} tokens; its tokenizer is of another model",
      set, *largest, model.vocab_size));
}

/// What decides how text becomes tokens, without what a call may change.
nlohmann::json tokenizer(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  try {
    auto content = nlohmann::json::parse(io::read_text(path));
    for (const char* of_call : {"truncation", "padding"}) content.erase(of_call);
    return content;
  } catch (const nlohmann::json::exception& error) {
    throw dist::InputError(
        fmt::format("{} is not a tokenizer ({}); copy it again", path.string(), error.what()));
  }
}

void check_control(const JobConfig& config, const io::ModelConfig& model) {
  const std::filesystem::path& control = config.evaluate.control;
  const auto found = io::ModelConfig::read(control);
  shard::find_architecture(found);
  if (config.parallel.tensor) shard::check_tensor_size(found, *config.parallel.tensor);
  if (found.vocab_size != model.vocab_size) {
    throw dist::InputError(fmt::format(
        "evaluate.control {} has a vocabulary of {} tokens, model {} one of {}; give a control "
        "with the same tokenizer and vocabulary",
        control.string(), found.vocab_size, config.model.string(), model.vocab_size));
  }
  if (tokenizer(control) == tokenizer(config.model)) return;
  throw dist::InputError(fmt::format(
      "evaluate.control {} has another tokenizer.json than model {}; give a control that was "
      "trained with the same tokenizer",
      control.string(), config.model.string()));
}

}  // namespace

OpenCheckpoint open_checkpoint(const std::filesystem::path& directory,
                               const dist::Communicator& world) {
  return dist::agree(world, [&] {
    return OpenCheckpoint{io::Checkpoint(directory), io::ModelConfig::read(directory)};
  });
}

std::vector<shard::Site> make_sites(const JobConfig& config, const io::ModelConfig& model) {
  std::vector<std::int64_t> layers(static_cast<std::size_t>(model.layers));
  std::iota(layers.begin(), layers.end(), 0);
  return shard::make_sites(config.sites.modules, config.sites.layers.value_or(layers), model);
}

void check_model(const JobConfig& config) {
  // The type first: other families lack fields that reading asks for.
  io::ModelConfig type;
  type.model_type = io::read_model_type(config.model);
  shard::find_architecture(type);
  const auto model = io::ModelConfig::read(config.model);
  make_sites(config, model);
  if (config.parallel.tensor) shard::check_tensor_size(model, *config.parallel.tensor);
  if (!config.evaluate.control.empty()) check_control(config, model);
}

io::TokenDataset read_tokens(const Job& job, const io::ModelConfig& model) {
  return dist::agree(*job.world, [&] {
    io::TokenDataset tokens = io::TokenDataset::read(job.work.tokens());
    for (const auto& [name, set] : tokens.sets) {
      check_vocabulary(name, set.items, model);
      check_vocabulary(name, set.options.sequences, model);
    }
    return tokens;
  });
}

io::TokenSet read_samples(const Job& job, const io::ModelConfig& model, std::int64_t most) {
  const io::TokenDataset file = io::TokenDataset::read(job.work.samples());
  const io::TokenSet& all = file.set("samples");
  check_vocabulary(all.name, all.items, model);
  io::TokenSet first;
  first.name = all.name;
  first.append(all, shard::all_items(std::min(most, all.items.count())));
  return first;
}

int tensor_size(const Job& job, const io::ModelConfig& model, int ranks) {
  const int node = job.world->all_reduce(job.world->split_node().size(), dist::ReduceOp::min);
  const auto memory = static_cast<double>(memory_share(*job.world));
  if (job.config.parallel.tensor) return *job.config.parallel.tensor;
  const double bytes = weight_elements(model) * (job.config.compute == Compute::fp32 ? 4 : 2);
  int tensor = 1;
  for (const int size : shard::legal_tensor_sizes(model)) {
    if (ranks % size == 0 && (node % size == 0 || bytes / tensor > memory / 2)) tensor = size;
  }
  return tensor;
}

dist::ParallelLayout make_layout(const Job& job, const io::ModelConfig& model) {
  const int ranks = job.world->size();
  const int tensor = tensor_size(job, model, ranks);
  dist::ParallelLayout layout(*job.world, tensor);
  if (ranks > 1) {
    dist::log::info(
        fmt::format("layout: {} ranks = {} data × {} tensor", ranks, ranks / tensor, tensor));
  }
  return layout;
}

torch::Tensor local_rows(const std::vector<double>& matrix, std::int64_t width,
                         const shard::Site& site, const dist::ParallelLayout& layout) {
  const torch::Tensor whole = torch::tensor(matrix, torch::kFloat64).view({width, -1});
  if (!site.is_split()) return whole;
  const dist::Range own = dist::slice(width, layout.tensor().size(), layout.tensor().rank());
  return whole.slice(0, own.begin, own.end);
}

shard::ModelOptions model_options(const Job& job) {
  const bool available = torch::cuda::is_available();
  dist::agree(*job.world, [&] {
    if (job.config.device == Device::cuda && !available) {
      throw dist::UsageError(
          "device is cuda, but LibTorch finds no CUDA device here; use device: cpu");
    }
  });
  // Every rank must come to the same choice, whatever its own node has.
  const bool all_have = job.world->all_reduce(available ? 1 : 0, dist::ReduceOp::min) == 1;
  const bool cuda = job.config.device != Device::cpu && all_have;

  shard::ModelOptions options;
  options.device = shard::local_device(cuda ? torch::kCUDA : torch::kCPU, *job.world);
  options.inference = true;
  options.threads = job.threads;
  bool bf16 = job.config.compute == Compute::bf16;
  if (job.config.compute == Compute::automatic) {
    const bool fast = shard::default_compute_dtype(options.device) == torch::kBFloat16;
    bf16 = job.world->all_reduce(fast ? 1 : 0, dist::ReduceOp::min) == 1;
  }
  options.dtype = bf16 ? torch::kBFloat16 : torch::kFloat32;
  return options;
}

std::int64_t batch_tokens(const JobConfig& config, const io::ModelConfig& model,
                          torch::Device device) {
  constexpr std::int64_t least = 1024, most = 4096;
  if (!device.is_cpu()) return config.parallel.batch_tokens.value_or(most);
  // An MLP's states of more than this do not stay in the caches from one operation to the next.
  constexpr std::int64_t cached = std::int64_t{4} << 20;
  return config.parallel.batch_tokens.value_or(
      std::clamp(cached / model.intermediate_size, least, most));
}

std::int64_t batch_tokens(const JobConfig& config, const shard::CausalLM& model) {
  return batch_tokens(config, model.config(), model.options().device);
}

shard::Residency residency(const Job& job, const io::ModelConfig& model, int tensor_size,
                           const shard::ModelOptions& options) {
  const std::uint64_t memory = memory_share(*job.world);
  if (job.config.parallel.residency) return *job.config.parallel.residency;
  if (!options.device.is_cpu()) return shard::Residency::full;
  const double bytes =
      weight_elements(model) / tensor_size * static_cast<double>(torch::elementSize(options.dtype));
  const bool fits = bytes <= 0.75 * static_cast<double>(memory);
  return fits ? shard::Residency::full : shard::Residency::layer;
}

bool recomputes_layers(const Job& job, const io::ModelConfig& model, int tensor_size,
                       const shard::ModelOptions& options) {
  const auto memory = static_cast<double>(memory_share(*job.world));
  if (!options.device.is_cpu()) return true;
  const std::int64_t tokens = batch_tokens(job.config, model, options.device);
  const double bytes = static_cast<double>(model.layers) *
                       activation_elements(model, tokens, tensor_size) *
                       static_cast<double>(torch::elementSize(options.dtype));
  return bytes > memory / 4;
}

shard::ModelOptions training_options(const Job& job, const io::ModelConfig& model,
                                     const dist::ParallelLayout& layout) {
  shard::ModelOptions options = model_options(job);
  options.inference = false;
  options.recompute_layers = recomputes_layers(job, model, layout.tensor().size(), options);
  if (options.recompute_layers) {
    dist::log::info("training: each layer is computed again for its gradient, to save memory");
  }
  return options;
}

std::uint64_t memory_share(const dist::Communicator& world) {
  std::uint64_t bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit) bytes = std::min(bytes, limit);
  const auto ranks = static_cast<std::uint64_t>(world.split_node().size());
  return world.all_reduce(bytes / ranks, dist::ReduceOp::min);
}

}  // namespace mrp::jobs
