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
  Cutter(std::size_t file, std::uint64_t block_bytes, std::vector<WorkUnit>& units)
      : file_(file), block_bytes_(block_bytes), units_(units) {}

  void copy(std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t at = begin; at < end; at += block_bytes_) {
      const std::uint64_t stop = std::min(at + block_bytes_, end);
      units_.push_back({file_, at, stop, {}, {}, stop - at});
    }
  }

  void fold(const io::TensorInfo& info, std::size_t index, const TensorEdit& edit) {
    const MatrixShape shape = matrix_shape(info);
    const auto element = static_cast<std::uint64_t>(io::dtype_bits(info.dtype)) / 8;
    const bool columns = by_columns(edit);
    const std::int64_t across = columns ? shape.columns : shape.rows;
    const std::uint64_t along =
        edited_bytes(info, edit) * static_cast<std::uint64_t>(columns ? shape.rows : shape.columns);
    std::int64_t step = block_rows(along, block_bytes_);
    if (columns) step = std::max(step, lanes_in(kLeastPiece, element));
    for (std::int64_t at = 0; at < across; at += step) {
      const dist::Range part{at, std::min(at + step, across)};
      units_.push_back({file_, info.begin, info.end, index, part,
                        along * static_cast<std::uint64_t>(part.size())});
    }
  }

 private:
  std::size_t file_;
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
  for (std::size_t f = 0; f < checkpoint.files().size(); ++f) {
    const io::SafetensorsFile& file = checkpoint.files()[f];
    Cutter cutter(f, block_bytes, units);
    std::uint64_t copied_from = file.raw_header().size();
    for (const io::TensorInfo& info : file.tensors()) {
      const auto found = edit_of.find(info.name);
      if (found == edit_of.end()) continue;
      cutter.copy(copied_from, info.begin);
      cutter.fold(info, found->second, plan.edits[found->second]);
      copied_from = info.end;
    }
    cutter.copy(copied_from, file.file_size());
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
