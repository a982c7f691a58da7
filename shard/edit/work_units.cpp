#include "shard/edit/work_units.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "shard/edit/tensor_fold.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

namespace {

constexpr std::uint64_t kLeastPiece = 4096;  ///< bytes of a row in a slab of columns

/// `bytes / piece`, as a multiple of kLanes and at least one.
std::int64_t lanes_in(std::uint64_t bytes, std::uint64_t piece) {
  const auto count = static_cast<std::int64_t>(bytes / std::max<std::uint64_t>(piece, 1));
  return std::max(count / kLanes, std::int64_t{1}) * kLanes;
}

class Cutter {
 public:
  Cutter(std::uint64_t block_bytes, std::vector<WorkUnit>& units)
      : block_bytes_(block_bytes), units_(units) {}

  void copy(std::size_t file, const io::TensorInfo& info) {
    for (std::uint64_t at = info.begin; at < info.end; at += block_bytes_) {
      const std::uint64_t stop = std::min(at + block_bytes_, info.end);
      units_.push_back({file, &info, at, stop, {}, false, {}, stop - at});
    }
  }

  void fold(std::size_t file, const io::TensorInfo& info, std::size_t index,
            const TensorEdit& edit) {
    const MatrixShape shape = matrix_shape(info);
    const auto element = static_cast<std::uint64_t>(io::dtype_bits(info.dtype)) / 8;
    const bool columns = by_columns(edit);
    const std::int64_t across = columns ? shape.columns : shape.rows;
    const auto length = static_cast<std::uint64_t>(columns ? shape.rows : shape.columns);
    const std::uint64_t along = edited_bytes(info, edit) * length;
    std::int64_t step = block_rows(along, block_bytes_);
    if (columns) step = std::max(step, lanes_in(kLeastPiece, element));
    for (std::int64_t at = 0; at < across; at += step) {
      const dist::Range part{at, std::min(at + step, across)};
      WorkUnit unit{file, &info, info.begin, info.end, index, columns, part, 0};
      unit.bytes = along * static_cast<std::uint64_t>(part.size());
      if (!columns) {
        unit.begin = info.begin + static_cast<std::uint64_t>(part.begin) * element * length;
        unit.end = info.begin + static_cast<std::uint64_t>(part.end) * element * length;
      }
      units_.push_back(unit);
    }
  }

 private:
  std::uint64_t block_bytes_;
  std::vector<WorkUnit>& units_;
};

}  // namespace

std::uint64_t edited_bytes(const io::TensorInfo& info, const TensorEdit& edit) {
  return static_cast<std::uint64_t>(io::dtype_bits(info.dtype)) / 8 +
         (edit.delta ? sizeof(float) : 0);
}

std::int64_t block_rows(std::uint64_t row_bytes, std::uint64_t block_bytes) {
  return lanes_in(block_bytes, row_bytes);
}

std::vector<WorkUnit> make_work_units(const io::Checkpoint& checkpoint, const EditPlan& plan,
                                      std::uint64_t block_bytes) {
  std::map<std::string, std::size_t> edit_of;
  for (std::size_t i = 0; i < plan.edits.size(); ++i) edit_of[plan.edits[i].tensor] = i;
  std::vector<WorkUnit> units;
  Cutter cutter(block_bytes, units);
  for (std::size_t f = 0; f < checkpoint.files().size(); ++f) {
    for (const io::TensorInfo& info : checkpoint.files()[f].tensors()) {
      const auto found = edit_of.find(info.name);
      if (found == edit_of.end()) {
        cutter.copy(f, info);
      } else {
        cutter.fold(f, info, found->second, plan.edits[found->second]);
      }
    }
  }
  return units;
}

std::vector<dist::Range> share_units(const std::vector<WorkUnit>& units, const EditPlan& plan,
                                     const io::SubspaceFile& subspaces, int ranks) {
  std::vector<std::int64_t> costs;
  for (const WorkUnit& unit : units) {
    std::uint64_t sixteenths = 16;
    if (unit.edit) {
      for (const Fold& fold : plan.edits[*unit.edit].folds) {
        sixteenths += 16 + static_cast<std::uint64_t>(subspaces.sites.at(fold.site).k);
      }
    }
    costs.push_back(static_cast<std::int64_t>(unit.bytes / 16 * sixteenths) + 1);
  }
  return dist::balance(costs, ranks);
}

}  // namespace mrp::shard
