// states.h5: hidden states [tokens × width] per set and site, written by all ranks as column slices.
//
//   /                          attributes: format "mrp.states", version, fingerprint
//   /<set>/positions           i64 [N × 2]: (sequence, position) of each row
//   /<set>/<site>/hidden_states bf16 or f32 [N × width], chunks [rows × slice] so that what a rank writes is
//                              contiguous on disk
// Independent writes into preallocated chunks: collective ones can deadlock under OMPIO.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/partition.hpp"
#include "io/dtype.hpp"

namespace mrp::io {

struct SiteShape {
  std::string site;          ///< "layers.3.down_proj.input"
  std::int64_t width = 0;
  std::int64_t slices = 1;   ///< number of column slices in which it will be written
};

struct StateLayout {
  std::map<std::string, std::vector<std::array<std::int64_t, 2>>> positions;  ///< set → rows
  std::vector<SiteShape> sites;
  DType dtype = DType::bf16;  ///< bf16 or f32
  std::uint64_t bytes() const;
};

class StateWriter {
 public:
  /// Collective over `comm`. Creates the file under its partial name with all datasets allocated.
  /// Runs the self-test first (see self_test). @throws ResourceError when the disk is too small.
  StateWriter(const std::filesystem::path& path, const StateLayout& layout,
              const std::string& fingerprint, const dist::Communicator& comm);
  ~StateWriter();

  /// Independent: rows × columns of one dataset, packed row-major, `data` of the layout's dtype.
  /// Ranges of different ranks must not overlap.
  void write(const std::string& set, const std::string& site, dist::Range rows, dist::Range columns,
             std::span<const std::byte> data);

  /// Collective. Flushes, closes and gives the file its final name.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Serial, read-only, any number of ranks side by side.
class StateReader {
 public:
  /// @throws InputError for a foreign or damaged file.
  explicit StateReader(const std::filesystem::path& path);
  ~StateReader();
  StateReader(StateReader&&) noexcept;

  std::vector<std::string> sets() const;
  std::vector<std::string> sites() const;
  std::int64_t rows(const std::string& set) const;
  std::int64_t width(const std::string& site) const;
  DType dtype() const;
  std::vector<std::array<std::int64_t, 2>> positions(const std::string& set) const;

  /// The block as floats, row-major into out [rows.size() × columns.size()].
  void read(const std::string& set, const std::string& site, dist::Range rows, dist::Range columns,
            std::span<float> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Collective over `comm`. Writes and reads back a small file in `directory` the way StateWriter does.
/// @throws ResourceError naming the directory if what comes back differs.
void self_test(const std::filesystem::path& directory, const dist::Communicator& comm);

}  // namespace mrp::io
