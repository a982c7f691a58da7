// Reads parts of files in an order that is known beforehand, two of them while the one before is at
// work.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "io/direct_file.hpp"

namespace mrp::io {

struct FilePart {
  std::filesystem::path file;
  std::uint64_t begin = 0;
  std::uint64_t bytes = 0;
};

/// Holds four parts in memory and one file open. Not thread-safe.
class ReadAhead {
 public:
  explicit ReadAhead(std::vector<FilePart> parts) : parts_(std::move(parts)) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// The next part, in memory that a write to the same place of another file can take directly. It
  /// stays valid until the call after the next one. @throws ResourceError.
  std::span<std::byte> next();

 private:
  struct Slot {
    PageBuffer buffer;
    std::future<std::span<std::byte>> under_way;  ///< its destructor waits
  };
  void start(std::size_t part);

  std::vector<FilePart> parts_;
  std::size_t next_ = 0;
  std::filesystem::path opened_;
  std::shared_ptr<const DirectFile> file_;
  std::array<Slot, 4> slots_;
};

}  // namespace mrp::io
