#include "io/read_ahead.hpp"

#include "dist/error.hpp"

namespace mrp::io {

void ReadAhead::start(std::size_t part) {
  if (part >= parts_.size()) return;
  const FilePart& what = parts_[part];
  if (!file_ || opened_ != what.file) {
    file_ = std::make_shared<DirectFile>(what.file, DirectFile::Access::read);
    opened_ = what.file;
  }
  Slot& slot = slots_[part % slots_.size()];
  slot.under_way = std::async(std::launch::async, [&what, &slot, file = file_] {
    return file->read(what.begin, what.bytes, slot.buffer);
  });
}

std::span<std::byte> ReadAhead::next() {
  MRP_EXPECT(next_ < parts_.size());
  if (next_ == 0) {
    start(0);
    start(1);
  }
  start(next_ + 2);
  return slots_[next_++ % slots_.size()].under_way.get();
}

}  // namespace mrp::io
