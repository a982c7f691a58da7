#include "io/chunk_reader.hpp"

#include <algorithm>

namespace mrp::io {

void ChunkReader::turn_to(const ChunkRun& run, dist::Range across) {
  for (Slot& slot : slots_) {
    slot.under_way = {};
    slot.step = -1;
  }
  run_ = run;
  across_ = across;
}

ChunkReader::Slot& ChunkReader::start(std::int64_t step) {
  Slot& slot = slots_[static_cast<std::size_t>(step) % slots_.size()];
  if (slot.step == step) return slot;
  slot.under_way = {};
  slot.step = step;
  const std::uint64_t begin =
      run_.chunk_begin(step / across_.size(), across_.begin + step % across_.size());
  slot.under_way = std::async(std::launch::async, [this, begin, &slot] {
    return file_->read(begin, run_.chunk_bytes(), slot.buffer);
  });
  return slot;
}

std::span<const std::byte> ChunkReader::chunk(std::int64_t down, std::int64_t across) {
  const std::int64_t step = down * across_.size() + across - across_.begin;
  const std::int64_t end = std::min(step + std::ssize(slots_), run_.down * across_.size());
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
