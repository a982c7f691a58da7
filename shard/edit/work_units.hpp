// How a rewrite is cut into pieces of work that ranks share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "dist/partition.hpp"
#include "io/checkpoint.hpp"
#include "shard/edit/edit_plan.hpp"

namespace mrp::shard {

/// Bytes [begin, end) of a tensor: copied, or rows `part` of an edited one. Or columns `part` of an
/// edited tensor, which lie scattered between `begin` and `end`.
struct WorkUnit {
  std::size_t file = 0;
  const io::TensorInfo* tensor = nullptr;
  std::uint64_t begin = 0;  ///< in the file
  std::uint64_t end = 0;
  std::optional<std::size_t> edit;  ///< index into the plan
  bool columns = false;
  dist::Range part;
  std::uint64_t bytes = 0;  ///< held in memory: of the tensor and of its trained change
};

/// In file order; the same whatever the number of ranks. A piece is about `block_bytes` long: never
/// fewer than kLanes rows, nor columns that make strided pieces of less than 4 KiB.
std::vector<WorkUnit> make_work_units(const io::Checkpoint& checkpoint, const EditPlan& plan,
                                      std::uint64_t block_bytes);

/// The contiguous share of each rank. Folding a byte costs about 2 + k/16 times copying it.
std::vector<dist::Range> share_units(const std::vector<WorkUnit>& units, const EditPlan& plan,
                                     const io::SubspaceFile& subspaces, int ranks);

/// Bytes in memory of one element of an edited tensor: its own and those of its trained change.
std::uint64_t edited_bytes(const io::TensorInfo& info, const TensorEdit& edit);

/// Rows that make a block of about `block_bytes`: a multiple of kLanes.
std::int64_t block_rows(std::uint64_t row_bytes, std::uint64_t block_bytes);

}  // namespace mrp::shard
