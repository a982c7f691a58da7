// Folds random projections of 32 directions into every o_proj and down_proj of a checkpoint.
//
//   mpirun -n RANKS merge_benchmark CHECKPOINT OUTPUT
//
// Prints one JSON object: "seconds" of the slowest rank until OUTPUT is complete and synced,
// "memory": the most MiB that a rank took on top of what it had before, "scopes": seconds of parts.
#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <random>

#include "dist/error.hpp"
#include "dist/session.hpp"
#include "io/model_config.hpp"
#include "shard/edit/merge.hpp"
#include "shard/edit/orthonormal.hpp"

namespace {

using namespace mrp;

constexpr std::int64_t kDirections = 32;

io::StoredSubspace random_subspace(const std::string& site, std::int64_t width, unsigned seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  const std::int64_t k = std::min(kDirections, width / 2);
  io::StoredSubspace subspace{site, width, k, {}, {}, {}};
  for (std::int64_t i = 0; i < width * k; ++i) subspace.a.push_back(normal(generator));
  shard::orthonormalise(subspace.a, k, site);
  subspace.b = subspace.a;
  return subspace;
}

io::SubspaceFile random_subspaces(const io::ModelConfig& config) {
  io::SubspaceFile file;
  unsigned seed = 0;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    for (const auto& [module, width] : {std::pair("o_proj", config.heads * config.head_dim),
                                        std::pair("down_proj", config.intermediate_size)}) {
      const auto site = fmt::format("layers.{}.{}.input", layer, module);
      file.sites[site] = random_subspace(site, width, ++seed);
    }
  }
  return file;
}

double peak_mebibytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void run(const std::filesystem::path& input, const std::filesystem::path& output,
         const dist::Communicator& comm) {
  const io::Checkpoint checkpoint(input);
  const auto config = io::ModelConfig::read(input);
  const io::SubspaceFile subspaces = random_subspaces(config);
  const auto plan = shard::make_edit_plan(checkpoint, config, subspaces);
  const double idle = peak_mebibytes();
  dist::Timers timers;
  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  shard::merge(checkpoint, plan, subspaces, nullptr, {}, output, comm, timers);
  comm.barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const double memory = comm.all_reduce(peak_mebibytes() - idle, dist::ReduceOp::max);
  nlohmann::json scopes;
  for (const auto& entry : timers.reduce(comm)) scopes[entry.name] = entry.max;
  const nlohmann::json result = {
      {"seconds", seconds.count()}, {"memory", memory}, {"scopes", scopes}};
  if (comm.is_root()) fmt::print("{}\n", result.dump());
}

}  // namespace

int main(int argc, char** argv) {
  const dist::Session session(argc, argv);
  try {
    if (argc != 3) throw dist::UsageError("merge_benchmark CHECKPOINT OUTPUT");
    run(argv[1], argv[2], dist::Communicator::world());
  } catch (...) {
    dist::abort_job(std::current_exception());
  }
  return 0;
}
