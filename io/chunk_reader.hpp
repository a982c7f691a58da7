// Reads a dataset piece by piece of its chunks past HDF5 and the page cache.
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

/// Chunks are read in bands of rows of about 2 MiB. While one is at work the next seven are read:
/// those beside it, then those below. Not thread-safe.
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
  /// The rows that are read together with `row`.
  dist::Range band(std::int64_t row) const { return rows_of(index_of(row)); }
  /// The bytes of those rows in a column of chunks, valid until the next call.
  /// @throws ResourceError.
  std::span<const std::byte> read_band(std::int64_t row, std::int64_t across);

 private:
  struct Slot {
    std::int64_t step = -1;  ///< of the band in reading order; −1: none
    PageBuffer buffer;
    std::future<std::span<std::byte>> under_way;  ///< its destructor waits
    std::span<const std::byte> bytes;
  };
  /// Bands are numbered downwards, those of one chunk after another.
  std::int64_t index_of(std::int64_t row) const;
  dist::Range rows_of(std::int64_t band) const;
  /// The slot of a band that is there or under way.
  Slot& start(std::int64_t step);

  const DirectFile* file_;
  ChunkRun run_;
  dist::Range across_;
  std::int64_t bands_ = 1;      ///< in a chunk
  std::int64_t band_rows_ = 1;  ///< but for the last of a chunk
  std::array<Slot, 8> slots_;
};

}  // namespace mrp::io
