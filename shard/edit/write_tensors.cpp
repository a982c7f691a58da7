#include <map>
#include <optional>

#include "io/direct_file.hpp"
#include "shard/edit/merge_steps.hpp"
#include "shard/edit/work_units.hpp"

namespace mrp::shard {

namespace {

std::size_t element_bytes(io::DType dtype) {
  return static_cast<std::size_t>(io::dtype_bits(dtype)) / 8;
}

/// Does units of work; keeps the fold of the last tensor, because units of one tensor follow each
/// other.
class UnitWriter {
 public:
  explicit UnitWriter(const MergeJob& job) : job_(job) {}

  SquaredNorms write(const WorkUnit& unit) {
    if (!unit.edit) {
      copy(unit);
      return {};
    }
    const TensorEdit& edit = job_.plan.edits[*unit.edit];
    const io::TensorInfo& info = job_.checkpoint.info(edit.tensor);
    if (edit_ != unit.edit) {
      fold_.emplace(info, edit, job_.subspaces, job_.options.rounding);
      edit_ = unit.edit;
      if (fold_->needs_observation()) observe(info, unit.file);
    }
    return fold_->by_columns() ? write_columns(info, unit) : write_rows(info, unit);
  }

  void sync() const {
    for (const auto& [file, partial] : files_) partial.sync();
  }

 private:
  const io::SafetensorsFile& input(std::size_t file) const { return job_.checkpoint.files()[file]; }

  const io::DirectFile& output(std::size_t file) {
    const auto found = files_.find(file);
    if (found != files_.end()) return found->second;
    return files_.try_emplace(file, job_.output_file(file), io::DirectFile::Access::write)
        .first->second;
  }

  void copy(const WorkUnit& unit) {
    buffer_.resize(static_cast<std::size_t>(unit.bytes));
    input(unit.file).read(unit.begin, buffer_);
    output(unit.file).write(unit.begin, buffer_);
  }

  /// The trained change of a block of the tensor at work; nothing if it has none.
  std::span<const float> read_delta(const io::TensorInfo& info, dist::Range rows,
                                    dist::Range columns) {
    if (!job_.plan.edits[*edit_].delta) return {};
    delta_.resize(static_cast<std::size_t>(rows.size() * columns.size()));
    job_.deltas->read(info.name, rows, columns, delta_);
    return delta_;
  }

  /// Rows `part` of a tensor into buffer_; returns where they begin in the file.
  std::uint64_t read_rows(const io::TensorInfo& info, std::size_t file, dist::Range part,
                          MatrixBytes& block) {
    const MatrixShape shape = matrix_shape(info);
    const std::size_t row = element_bytes(info.dtype) * static_cast<std::size_t>(shape.columns);
    const std::uint64_t begin = info.begin + static_cast<std::uint64_t>(part.begin) * row;
    buffer_.resize(row * static_cast<std::size_t>(part.size()));
    input(file).read(begin, buffer_);
    block = {info.dtype, part.size(), shape.columns, buffer_,
             read_delta(info, part, {0, shape.columns})};
    return begin;
  }

  void observe(const io::TensorInfo& info, std::size_t file) {
    const MatrixShape shape = matrix_shape(info);
    const std::int64_t step = block_rows(
        edited_bytes(info, job_.plan.edits[*edit_]) * static_cast<std::uint64_t>(shape.columns),
        job_.options.block_bytes);
    MatrixBytes block;
    for (std::int64_t row = 0; row < shape.rows; row += step) {
      read_rows(info, file, {row, std::min(row + step, shape.rows)}, block);
      fold_->observe(row, block);
    }
  }

  SquaredNorms write_rows(const io::TensorInfo& info, const WorkUnit& unit) {
    MatrixBytes block;
    const std::uint64_t begin = read_rows(info, unit.file, unit.part, block);
    const SquaredNorms removed = fold_->fold(unit.part.begin, block);
    output(unit.file).write(begin, buffer_);
    return removed;
  }

  SquaredNorms write_columns(const io::TensorInfo& info, const WorkUnit& unit) {
    const MatrixShape shape = matrix_shape(info);
    buffer_ = job_.checkpoint.read_block(info.name, {0, shape.rows}, unit.part);
    const MatrixBytes slab{info.dtype, shape.rows, unit.part.size(), buffer_,
                           read_delta(info, {0, shape.rows}, unit.part)};
    const SquaredNorms removed = fold_->fold(unit.part.begin, slab);
    const io::DirectFile& file = output(unit.file);
    if (unit.part.size() == shape.columns) {
      file.write(info.begin, buffer_);
      return removed;
    }
    const std::size_t element = element_bytes(info.dtype);
    const std::size_t piece = element * static_cast<std::size_t>(unit.part.size());
    const std::size_t stride = element * static_cast<std::size_t>(shape.columns);
    std::uint64_t at = info.begin + element * static_cast<std::uint64_t>(unit.part.begin);
    for (std::size_t from = 0; from < buffer_.size(); from += piece, at += stride) {
      file.write(at, std::span(buffer_).subspan(from, piece));
    }
    return removed;
  }

  const MergeJob& job_;
  std::map<std::size_t, io::DirectFile> files_;
  std::optional<std::size_t> edit_;
  std::optional<TensorFold> fold_;
  std::vector<std::byte> buffer_;
  std::vector<float> delta_;
};

}  // namespace

std::vector<SquaredNorms> write_tensors(const MergeJob& job) {
  const std::vector<WorkUnit> units =
      make_work_units(job.checkpoint, job.plan, job.options.block_bytes);
  const std::vector<dist::Range> shares =
      share_units(units, job.plan, job.subspaces, job.comm.size());
  std::vector<std::uint64_t> weights;
  for (const WorkUnit& unit : units) weights.push_back(unit.bytes);

  // One slot for each unit, so that the sums below have the same order on any number of ranks.
  std::vector<double> removed(2 * units.size(), 0.0);
  {
    UnitWriter writer(job);
    run_share(
        job, "merge", shares, weights,
        [&](std::size_t i) {
          const SquaredNorms norms = writer.write(units[i]);
          removed[2 * i] = norms.rows;
          removed[2 * i + 1] = norms.columns;
        },
        [&] { writer.sync(); });
  }
  job.comm.all_reduce(std::span(removed));
  std::vector<SquaredNorms> of_edits(job.plan.edits.size());
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (!units[i].edit) continue;
    of_edits[*units[i].edit].rows += removed[2 * i];
    of_edits[*units[i].edit].columns += removed[2 * i + 1];
  }
  return of_edits;
}

}  // namespace mrp::shard
