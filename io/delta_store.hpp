// deltas.h5: trained changes ΔW of checkpoint tensors, written by all ranks as blocks.
//
//   /                attributes: format "mrp.deltas", version, fingerprint, summary
//   /<tensor name>   f32, contiguous, in the shape of the checkpoint's tensor (one or two
//                    dimensions)
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/partition.hpp"

namespace mrp::io {

struct DeltaLayout {
  std::map<std::string, std::vector<std::int64_t>> tensors;  ///< name → shape, [m] or [m × n]
  std::string summary;                                       ///< how it was trained, as JSON text

  /// Size of the data on disk.
  std::uint64_t bytes() const;
};

/// One file written by many ranks. It appears under its name in finish() or not at all.
class DeltaWriter {
 public:
  /// Collective over `comm`, which must outlive the writer; the layout must be the same on all
  /// ranks. Runs the self-test, then creates the file under its partial name with all datasets
  /// allocated.
  /// @throws ResourceError: the disk is too small, or not fit for parallel writing.
  DeltaWriter(const std::filesystem::path& path, const DeltaLayout& layout,
              const std::string& fingerprint, const dist::Communicator& comm);
  /// Not collective. Without finish() the partial file is removed.
  ~DeltaWriter();

  /// Independent: rows × columns of one tensor, packed row-major; a vector is one row. Ranges of
  /// different ranks must not overlap, and all together must cover the tensor. @throws
  /// ResourceError.
  void write(const std::string& tensor, dist::Range rows, dist::Range columns,
             std::span<const float> data);

  /// Collective. Syncs, closes and gives the file its final name; nothing may be written
  /// afterwards. @throws ResourceError.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Serial, read-only, any number of ranks side by side. Not thread-safe.
class DeltaReader {
 public:
  /// @throws InputError for a foreign or damaged file.
  explicit DeltaReader(const std::filesystem::path& path);
  ~DeltaReader();
  DeltaReader(DeltaReader&&) noexcept;
  DeltaReader& operator=(DeltaReader&&) noexcept;

  const DeltaLayout& layout() const;
  const std::string& fingerprint() const;

  /// The block, row-major into out [rows.size() × columns.size()]; a vector is one row.
  /// @throws InputError for a tensor that the file lacks, or values that are not finite (names the
  /// tensor).
  void read(const std::string& tensor, dist::Range rows, dist::Range columns,
            std::span<float> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mrp::io
