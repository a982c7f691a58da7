// Reads a dataset chunk by chunk past HDF5 and the page cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <future>
#include <span>

#include "dist/partition.hpp"
#include "io/chunk_run.hpp"
#include "io/direct_file.hpp"

namespace mrp::io {

/// While one chunk is at work the next two are read: those beside it, then those below. Not
/// thread-safe.
class ChunkReader {
 public:
  /// `file` must outlive the reader.
  explicit ChunkReader(const DirectFile& file) : file_(&file) {}
  ChunkReader(const ChunkReader&) = delete;
  ChunkReader& operator=(const ChunkReader&) = delete;

  /// From now on reads columns of chunks `across` of `run`, all bytes of which the file holds. The
  /// memory is kept: that of new pages has to be cleared.
  void turn_to(const ChunkRun& run, dist::Range across);
  dist::Range across() const noexcept { return across_; }
  /// The bytes of a chunk, valid until the next call. @throws ResourceError.
  std::span<const std::byte> chunk(std::int64_t down, std::int64_t across);

 private:
  struct Slot {
    std::int64_t step = -1;  ///< of the chunk in reading order; −1: none
    PageBuffer buffer;
    std::future<std::span<std::byte>> under_way;  ///< its destructor waits
    std::span<const std::byte> bytes;
  };
  /// The slot of a chunk that is there or under way.
  Slot& start(std::int64_t step);

  const DirectFile* file_;
  ChunkRun run_;
  dist::Range across_;
  std::array<Slot, 3> slots_;
};

}  // namespace mrp::io
