// Reads a dataset chunk by chunk past HDF5 and the page cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "io/chunk_run.hpp"
#include "io/direct_file.hpp"

namespace mrp::io {

/// While one chunk is at work the next one below it is read. Not thread-safe.
class ChunkReader {
 public:
  /// `file` must outlive the reader and hold all bytes of `run`.
  ChunkReader(const DirectFile& file, const ChunkRun& run) : file_(&file), run_(run) {}
  ChunkReader(const ChunkReader&) = delete;
  ChunkReader& operator=(const ChunkReader&) = delete;

  const ChunkRun& run() const noexcept { return run_; }
  /// The bytes of a chunk, valid until the next call. @throws ResourceError.
  std::span<const std::byte> chunk(std::int64_t down, std::int64_t across);

 private:
  struct Slot {
    PageBuffer buffer;
    std::int64_t index = -1;  ///< of the chunk in the run; −1: none
    std::span<const std::byte> bytes;
  };
  void read(Slot& slot, std::int64_t index) const;

  const DirectFile* file_;
  ChunkRun run_;
  Slot current_, next_;
  std::future<void> under_way_;  ///< of next_; its destructor waits
};

}  // namespace mrp::io
