#include "dist/parallel_layout.hpp"

#include <fmt/format.h>

#include <string>

#include "dist/error.hpp"

namespace mrp::dist {
namespace {

/// `tensor_size` if it divides `world_size`. @throws UsageError that names the counts that do.
int checked_tensor_size(int world_size, int tensor_size) {
  if (tensor_size > 0 && world_size % tensor_size == 0) return tensor_size;
  std::string legal;
  for (int size = 1; size <= world_size; ++size) {
    if (world_size % size == 0) legal += fmt::format("{}{}", legal.empty() ? "" : ", ", size);
  }
  throw UsageError(fmt::format(
      "parallel.tensor = {} does not divide the {} ranks of this job; legal values are {}",
      tensor_size, world_size, legal));
}

}  // namespace

ParallelLayout::ParallelLayout(const Communicator& world, int tensor_size)
    : world_(&world),
      tensor_(
          world.split(world.rank() / checked_tensor_size(world.size(), tensor_size), world.rank())),
      data_(world.split(world.rank() % tensor_size, world.rank())) {}

}  // namespace mrp::dist
