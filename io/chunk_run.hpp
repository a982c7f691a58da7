// Where the chunks of a dataset lie in the file, for transfers that go past HDF5.
#pragma once

#include <cstdint>
#include <optional>

#include "dist/partition.hpp"
#include "io/hdf5.hpp"

namespace mrp::io {

/// n / d, rounded up: how many parts of d cover n.
constexpr std::int64_t divide_up(std::int64_t n, std::int64_t d) {
  return (n + d - 1) / d;
}

/// Chunks [rows × columns] of a matrix, packed row-major, one after another in the file: those of
/// one row of chunks first. So HDF5 allocates datasets that neither grow nor are filtered.
struct ChunkRun {
  std::int64_t rows = 0, columns = 0;
  std::int64_t down = 0, across = 0;  ///< number of chunks
  std::uint64_t row_bytes = 0;        ///< of a chunk
  std::uint64_t begin = 0;            ///< of the first chunk in the file

  std::uint64_t chunk_bytes() const { return static_cast<std::uint64_t>(rows) * row_bytes; }
  std::uint64_t chunk_begin(std::int64_t down_index, std::int64_t across_index) const {
    return begin + static_cast<std::uint64_t>(down_index * across + across_index) * chunk_bytes();
  }
  std::uint64_t end() const { return chunk_begin(down, 0); }
  /// Whether `range` is made of whole columns of chunks, none of them partly outside the matrix.
  bool is_whole(dist::Range range) const {
    return range.begin % columns == 0 && range.end % columns == 0;
  }
};

/// The run of `dataset`; nothing if it is not chunked, filtered, empty or no matrix, or if HDF5 put
/// its chunks elsewhere. @throws Hdf5Error.
std::optional<ChunkRun> find_chunk_run(hid_t dataset);

}  // namespace mrp::io
