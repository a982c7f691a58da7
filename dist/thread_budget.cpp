#include "dist/thread_budget.hpp"

#include <fmt/format.h>
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "dist/agree.hpp"
#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::dist::detail {
namespace {

/// Cores that this thread may run on.
cpu_set_t affinity() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) {
    // A machine with more cores than a cpu_set_t holds.
    for (unsigned core = 0; core < std::thread::hardware_concurrency(); ++core) {
      CPU_SET(core, &cores);
    }
  }
  return cores;
}

}  // namespace

int thread_budget(int own_cores, int node_cores, int node_ranks) {
  return std::max(1, std::min(own_cores, node_cores / node_ranks));
}

int requested_threads(const char* text) {
  if (text == nullptr) return 0;
  const std::string_view value = text;
  int threads = 0;
  const auto [end, status] = std::from_chars(value.data(), value.data() + value.size(), threads);
  if (status != std::errc{} || end != value.data() + value.size() || threads < 1) {
    throw UsageError(fmt::format(
        "MRP_THREADS = '{}' is no thread count: give a positive integer or unset it", value));
  }
  return threads;
}

void release_default_binding() {
  const auto is_set = [](const char* name) { return std::getenv(name) != nullptr; };
  if (!is_set("OMPI_MCA_orte_bound_at_launch") || is_set("OMPI_MCA_hwloc_base_binding_policy") ||
      is_set("OMPI_MCA_rmaps_base_mapping_policy")) {
    return;
  }
  // The parent is mpirun or its daemon on this node; its cores are those that the job was given.
  cpu_set_t cores;
  if (sched_getaffinity(getppid(), sizeof(cores), &cores) == 0) {
    sched_setaffinity(0, sizeof(cores), &cores);
  }
}

int thread_budget_of_rank() {
  const Communicator world = Communicator::world();
  const int requested = agree(world, [] { return requested_threads(std::getenv("MRP_THREADS")); });
  const Communicator node = world.split_node();
  const cpu_set_t own = affinity();
  cpu_set_t all;
  MRP_MPI(MPI_Allreduce(&own, &all, sizeof(own), MPI_BYTE, MPI_BOR, node.get()));
  return requested > 0 ? requested : thread_budget(CPU_COUNT(&own), CPU_COUNT(&all), node.size());
}

}  // namespace mrp::dist::detail
