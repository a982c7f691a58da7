#include "io/chunk_reader.hpp"

namespace mrp::io {

void ChunkReader::read(Slot& slot, std::int64_t index) const {
  slot.index = -1;
  slot.bytes = file_->read(run_.chunk_begin(0, index), run_.chunk_bytes(), slot.buffer);
  slot.index = index;
}

std::span<const std::byte> ChunkReader::chunk(std::int64_t down, std::int64_t across) {
  const std::int64_t index = down * run_.across + across;
  if (current_.index == index) return current_.bytes;
  if (under_way_.valid()) under_way_.get();
  if (next_.index == index) {
    std::swap(current_, next_);
  } else {
    read(current_, index);
  }
  if (down + 1 < run_.down) {
    under_way_ =
        std::async(std::launch::async, [this, below = index + run_.across] { read(next_, below); });
  }
  return current_.bytes;
}

}  // namespace mrp::io
