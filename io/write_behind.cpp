#include "io/write_behind.hpp"

namespace mrp::io {

void WriteBehind::wait() {
  if (under_way_.valid()) under_way_.get();
}

const DirectFile& WriteBehind::open(const std::filesystem::path& file) {
  wait();
  if (file_ && opened_ == file) return *file_;
  finish();
  file_.emplace(file, DirectFile::Access::write);
  opened_ = file;
  return *file_;
}

void WriteBehind::write(const std::filesystem::path& file, std::uint64_t begin,
                        std::span<const std::byte> bytes) {
  const DirectFile& target = open(file);
  under_way_ =
      std::async(std::launch::async, [&target, begin, bytes] { target.write(begin, bytes); });
}

void WriteBehind::finish() {
  wait();
  if (file_) file_->sync();
  file_.reset();
}

}  // namespace mrp::io
