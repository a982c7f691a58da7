// states.h5: hidden states [tokens × width] per set and site, written by all ranks as column
// slices.
//
//   /                           attributes: format "mrp.states", version, fingerprint
//   /<set>/positions            i64 [N × 2]: (sequence, position) of each row
//   /<set>/<site>/hidden_states bf16 or f32 [N × width], chunks of about 8 MiB [rows × slice], so
//                               that what a rank writes is contiguous on disk
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/partition.hpp"
#include "io/dtype.hpp"

namespace mrp::io {

struct SiteShape {
  std::string site;  ///< "layers.3.down_proj.input"
  std::int64_t width = 0;
  std::int64_t slices = 1;  ///< number of column slices in which it will be written, at most width
};

struct StateLayout {
  std::map<std::string, std::vector<std::array<std::int64_t, 2>>> positions;  ///< set → rows
  std::vector<SiteShape> sites;
  DType dtype = DType::bf16;  ///< bf16 or f32

  /// Size of the data on disk, padding of the last chunks included.
  std::uint64_t bytes() const;
  /// Rows of a slice that fill whole pages of the file: blocks that begin and end at a multiple of
  /// them are written fastest.
  std::int64_t page_rows(const SiteShape& site) const;
};

/// One file written by many ranks. It appears under its name in finish() or not at all.
class StateWriter {
 public:
  /// Collective over `comm`, which must outlive the writer; the layout must be the same on all
  /// ranks. Runs the self-test, then creates the file under its partial name with all datasets
  /// allocated.
  /// @throws ResourceError: the disk is too small, or not fit for parallel writing. InputError: a
  /// set without rows.
  StateWriter(const std::filesystem::path& path, const StateLayout& layout,
              const std::string& fingerprint, const dist::Communicator& comm);
  /// Not collective. Without finish() the partial file is removed.
  ~StateWriter();

  /// Independent: rows × columns of one dataset, packed row-major, `data` of the layout's dtype.
  /// Ranges of different ranks must not overlap. @throws ResourceError.
  void write(const std::string& set, const std::string& site, dist::Range rows, dist::Range columns,
             std::span<const std::byte> data);

  /// Collective. Flushes, closes and gives the file its final name; nothing may be written
  /// afterwards.
  /// @throws ResourceError.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Serial, read-only, any number of ranks side by side. Not thread-safe.
class StateReader {
 public:
  /// @throws InputError for a foreign or damaged file.
  explicit StateReader(const std::filesystem::path& path);
  ~StateReader();
  StateReader(StateReader&&) noexcept;
  StateReader& operator=(StateReader&&) noexcept;

  const std::string& fingerprint() const;
  std::vector<std::string> sets() const;
  /// The same in every set.
  std::vector<std::string> sites() const;
  /// @throws InputError, as the following do, for a set or site that the file lacks; names those it
  /// has.
  std::int64_t rows(const std::string& set) const;
  std::int64_t width(const std::string& site) const;
  DType dtype() const;
  std::vector<std::array<std::int64_t, 2>> positions(const std::string& set) const;

  /// The block as floats, row-major into out [rows.size() × columns.size()]. Fastest in blocks of
  /// rows of some MiB whose columns are those that one rank wrote, or all.
  void read(const std::string& set, const std::string& site, dist::Range rows, dist::Range columns,
            std::span<float> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mrp::io
