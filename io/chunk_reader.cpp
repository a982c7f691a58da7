#include "io/chunk_reader.hpp"

#include <algorithm>

namespace mrp::io {

namespace {

constexpr std::uint64_t kBandBytes = std::uint64_t{2} << 20;

}  // namespace

void ChunkReader::turn_to(const ChunkRun& run, dist::Range across) {
  for (Slot& slot : slots_) {
    slot.under_way = {};
    slot.step = -1;
  }
  run_ = run;
  across_ = across;
  const auto fitting = static_cast<std::int64_t>(run.chunk_bytes() / kBandBytes);
  band_rows_ = std::max<std::int64_t>(divide_up(run.rows, std::max<std::int64_t>(fitting, 1)), 1);
  bands_ = std::max<std::int64_t>(divide_up(run.rows, band_rows_), 1);
}

std::int64_t ChunkReader::index_of(std::int64_t row) const {
  return row / run_.rows * bands_ + row % run_.rows / band_rows_;
}

dist::Range ChunkReader::rows_of(std::int64_t band) const {
  const std::int64_t chunk = band / bands_ * run_.rows;
  const std::int64_t begin = band % bands_ * band_rows_;
  return {chunk + begin, chunk + std::min(begin + band_rows_, run_.rows)};
}

ChunkReader::Slot& ChunkReader::start(std::int64_t step) {
  Slot& slot = slots_[static_cast<std::size_t>(step) % slots_.size()];
  if (slot.step == step) return slot;
  slot.under_way = {};
  slot.step = step;
  const dist::Range rows = rows_of(step / across_.size());
  const std::uint64_t begin =
      run_.chunk_begin(rows.begin / run_.rows, across_.begin + step % across_.size()) +
      static_cast<std::uint64_t>(rows.begin % run_.rows) * run_.row_bytes;
  const std::uint64_t bytes = static_cast<std::uint64_t>(rows.size()) * run_.row_bytes;
  slot.under_way = std::async(std::launch::async, [this, begin, bytes, &slot] {
    return file_->read(begin, bytes, slot.buffer);
  });
  return slot;
}

std::span<const std::byte> ChunkReader::read_band(std::int64_t row, std::int64_t across) {
  const std::int64_t step = index_of(row) * across_.size() + across - across_.begin;
  const std::int64_t end = std::min(step + std::ssize(slots_), run_.down * bands_ * across_.size());
  Slot& slot = start(step);
  for (std::int64_t next = step + 1; next < end; ++next) start(next);
  if (slot.under_way.valid()) {
    slot.step = -1;  // if this throws
    slot.bytes = slot.under_way.get();
    slot.step = step;
  }
  return slot.bytes;
}

}  // namespace mrp::io
