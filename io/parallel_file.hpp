// An HDF5 file that all ranks fill side by side: independent writes into datasets that are
// allocated beforehand, because collective ones can deadlock under OMPIO. Where the place of the
// bytes in the file is known they go there past HDF5 and the page cache, at the speed of the disk.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/partition.hpp"
#include "io/chunk_run.hpp"
#include "io/direct_file.hpp"
#include "io/hdf5.hpp"

namespace mrp::io {

/// It appears under its name in finish() or not at all.
class ParallelFile {
 public:
  /// Not collective, and touches no file. `comm` must outlive it.
  ParallelFile(const std::filesystem::path& path, const dist::Communicator& comm);
  /// Not collective. Without finish() the partial file is removed; HDF5's handles are left to
  /// MPI_Finalize, since closing would wait for ranks that may never come.
  ~ParallelFile();
  ParallelFile(const ParallelFile&) = delete;
  ParallelFile& operator=(const ParallelFile&) = delete;

  /// Collective. Creates the file under its partial name; `fill(file)` then makes groups,
  /// attributes and datasets, the same on all ranks. @throws ResourceError.
  void create(const std::string& format, std::int64_t version, const std::string& fingerprint,
              const std::function<void(hid_t)>& fill);

  /// For `fill`: an allocated dataset of one or two dimensions, contiguous or in chunks of the
  /// given lengths. Returns its number for write().
  std::size_t add_dataset(hid_t parent, const std::string& name, hid_t type,
                          const std::vector<std::int64_t>& shape,
                          const std::optional<std::vector<std::int64_t>>& chunk = {});

  /// Independent: rows × columns of one dataset (a vector is one row), packed row-major in its
  /// type. Ranges of different ranks must not overlap. Fastest where the columns are those of one
  /// column of chunks; the last bytes may then still be under way, and their failure comes with the
  /// next call. @throws ResourceError.
  void write(std::size_t dataset, dist::Range rows, dist::Range columns,
             std::span<const std::byte> data);

  /// Collective. Flushes, closes and gives the file its final name; nothing may be written
  /// afterwards. @throws ResourceError.
  void finish();

 private:
  struct Dataset {
    Hdf5Handle id;
    hid_t type;
    bool is_vector;
    std::int64_t rows, columns;
    std::optional<ChunkRun> chunks;
  };

  struct Piece {
    PageBuffer buffer;
    std::future<void> under_way;  ///< its destructor waits
  };

  void write_chunks(const ChunkRun& chunks, dist::Range rows, std::int64_t across,
                    std::span<const std::byte> data);
  void write_behind(std::uint64_t offset, std::span<const std::byte> bytes);
  void wait_for_pieces();
  void write_hdf5(const Dataset& target, dist::Range rows, dist::Range columns,
                  std::span<const std::byte> data);

  std::filesystem::path path_;
  const dist::Communicator* comm_;
  Hdf5Handle file_;
  std::vector<Dataset> datasets_;
  std::optional<DirectFile> direct_;
  std::array<Piece, 3> pieces_;  ///< one is filled while the others are written
  std::size_t next_piece_ = 0;
  bool finished_ = false;
};

/// Collective over `comm`. Before hours of work go into a file: `bytes` of data find room beside
/// `path`, and its directory passes the self-test. @throws ResourceError.
void require_fit(const std::filesystem::path& path, std::uint64_t bytes,
                 const dist::Communicator& comm);

/// Collective over `comm`. The ranks create the same datasets or wait for each other for ever:
/// `layout` describes what a rank is about to create. @throws ContractError on all ranks if it
/// differs between them.
void require_same(const std::string& layout, const dist::Communicator& comm);

/// Collective over `comm`. Writes a small file in `directory` with a ParallelFile, reads it back on
/// every rank and removes it. @throws ResourceError naming the directory if what comes back
/// differs.
void self_test(const std::filesystem::path& directory, const dist::Communicator& comm);

}  // namespace mrp::io
