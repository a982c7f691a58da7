#include <algorithm>
#include <optional>
#include <span>

#include "io/hash.hpp"
#include "io/read_ahead.hpp"
#include "io/write_behind.hpp"
#include "shard/edit/merge_steps.hpp"

namespace mrp::shard {

namespace {

std::size_t element_bytes(io::DType dtype) {
  return static_cast<std::size_t>(io::dtype_bits(dtype)) / 8;
}

/// The bytes of units that are read and written in one piece.
std::vector<io::FilePart> parts_of(const io::Checkpoint& checkpoint,
                                   std::span<const WorkUnit> units) {
  std::vector<io::FilePart> parts;
  for (const WorkUnit& unit : units) {
    if (unit.columns) continue;
    parts.push_back({checkpoint.files()[unit.file].path(), unit.begin, unit.end - unit.begin});
  }
  return parts;
}

/// Does units of work in their order: one is read and one is written while one is folded. Keeps the
/// fold of the last tensor, because units of one tensor follow each other.
class UnitWriter {
 public:
  UnitWriter(const MergeJob& job, std::span<const WorkUnit> units)
      : job_(job), reads_(parts_of(job.checkpoint, units)) {}

  /// What was removed of the unit. The digest of its new bytes goes to `digest`, if they lie in one
  /// piece.
  SquaredNorms write(const WorkUnit& unit, std::span<char> digest) {
    if (unit.edit && edit_ != unit.edit) {
      fold_.emplace(*unit.tensor, job_.plan.edits[*unit.edit], job_.subspaces,
                    job_.options.rounding);
      edit_ = unit.edit;
      if (fold_->needs_observation()) observe(*unit.tensor, unit.file);
    }
    if (unit.columns) return write_columns(unit);
    const std::span<std::byte> bytes = reads_.next();
    SquaredNorms removed;
    if (unit.edit) removed = fold_rows(unit, bytes);
    std::ranges::copy(io::xxh3_128(bytes), digest.begin());
    writes_.write(job_.output_file(unit.file), unit.begin, bytes);
    return removed;
  }

  void finish() { writes_.finish(); }

 private:
  /// The trained change of a block of the tensor at work; nothing if it has none.
  std::span<const float> read_delta(const io::TensorInfo& info, dist::Range rows,
                                    dist::Range columns) {
    if (!job_.plan.edits[*edit_].delta) return {};
    delta_.resize(static_cast<std::size_t>(rows.size() * columns.size()));
    job_.deltas->read(info.name, rows, columns, delta_);
    return delta_;
  }

  void observe(const io::TensorInfo& info, std::size_t file) {
    const MatrixShape shape = matrix_shape(info);
    const std::size_t row = element_bytes(info.dtype) * static_cast<std::size_t>(shape.columns);
    const std::int64_t step = block_rows(
        edited_bytes(info, job_.plan.edits[*edit_]) * static_cast<std::uint64_t>(shape.columns),
        job_.options.block_bytes);
    for (std::int64_t first = 0; first < shape.rows; first += step) {
      const dist::Range part{first, std::min(first + step, shape.rows)};
      buffer_.resize(row * static_cast<std::size_t>(part.size()));
      job_.checkpoint.files()[file].read(info.begin + static_cast<std::uint64_t>(first) * row,
                                         buffer_);
      fold_->observe(first, {info.dtype, part.size(), shape.columns, buffer_,
                             read_delta(info, part, {0, shape.columns})});
    }
  }

  SquaredNorms fold_rows(const WorkUnit& unit, std::span<std::byte> bytes) {
    const std::int64_t columns = matrix_shape(*unit.tensor).columns;
    return fold_->fold(unit.part.begin, {unit.tensor->dtype, unit.part.size(), columns, bytes,
                                         read_delta(*unit.tensor, unit.part, {0, columns})});
  }

  SquaredNorms write_columns(const WorkUnit& unit) {
    const io::TensorInfo& info = *unit.tensor;
    const MatrixShape shape = matrix_shape(info);
    buffer_ = job_.checkpoint.read_block(info.name, {0, shape.rows}, unit.part);
    const MatrixBytes slab{info.dtype, shape.rows, unit.part.size(), buffer_,
                           read_delta(info, {0, shape.rows}, unit.part)};
    const SquaredNorms removed = fold_->fold(unit.part.begin, slab);
    const io::DirectFile& file = writes_.open(job_.output_file(unit.file));
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
  io::ReadAhead reads_;
  io::WriteBehind writes_;  // ends before the memory that it writes from
  std::optional<std::size_t> edit_;
  std::optional<TensorFold> fold_;
  std::vector<std::byte> buffer_;
  std::vector<float> delta_;
};

}  // namespace

Written write_tensors(const MergeJob& job) {
  Written written{make_work_units(job.checkpoint, job.plan, job.options.block_bytes), {}, {}};
  const std::vector<WorkUnit>& units = written.units;
  const std::vector<dist::Range> shares =
      share_units(units, job.plan, job.subspaces, job.comm.size());
  const dist::Range own = shares[static_cast<std::size_t>(job.comm.rank())];
  std::vector<std::uint64_t> weights;
  for (const WorkUnit& unit : units) weights.push_back(unit.bytes);

  // One slot for each unit, so that the sums below have the same order on any number of ranks.
  std::vector<double> removed(2 * units.size(), 0.0);
  std::vector<char> digests(io::xxh3_digits * static_cast<std::size_t>(own.size()), '-');
  std::optional<UnitWriter> writer;
  run_share(
      job, "merge", shares, weights,
      [&](std::size_t i) {
        const std::size_t mine = i - static_cast<std::size_t>(own.begin);
        if (!writer)
          writer.emplace(job, std::span(units).subspan(i, static_cast<std::size_t>(own.size())));
        const SquaredNorms norms = writer->write(
            units[i], std::span(digests).subspan(mine * io::xxh3_digits, io::xxh3_digits));
        removed[2 * i] = norms.rows;
        removed[2 * i + 1] = norms.columns;
      },
      [&] {
        if (writer) writer->finish();
      });
  // Shares are contiguous and in rank order.
  written.digests = job.comm.all_gather_v(std::span<const char>(digests));
  job.comm.all_reduce(std::span(removed));
  written.removed.resize(job.plan.edits.size());
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (!units[i].edit) continue;
    written.removed[*units[i].edit].rows += removed[2 * i];
    written.removed[*units[i].edit].columns += removed[2 * i + 1];
  }
  return written;
}

}  // namespace mrp::shard
