// The safetensors container. The reader trusts nothing: every rule of the format is checked before
// a byte of data is used (reference: the format's README; stricter than it where noted in the
// source).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/dtype.hpp"
#include "io/file.hpp"

namespace mrp::io {

struct TensorInfo {
  std::string name;
  DType dtype{};
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< first byte, from the start of the file
  std::uint64_t end = 0;    ///< one past the last byte

  std::uint64_t bytes() const { return end - begin; }
  std::int64_t elements() const;
};

/// One open file. Reads by pread, never mmap; safe to use from several threads.
class SafetensorsFile {
 public:
  /// @throws InputError that names the file and the broken rule.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  /// In order of their data offsets.
  const std::vector<TensorInfo>& tensors() const noexcept { return tensors_; }
  const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }
  /// The 8-byte length and the header as they stand in the file, so that a rewrite can repeat them.
  const std::vector<std::byte>& raw_header() const noexcept { return raw_header_; }
  std::uint64_t file_size() const noexcept { return file_.size(); }
  /// Modification time when it was opened, nanoseconds since the epoch.
  std::int64_t modified() const noexcept { return file_.modified(); }

  /// Reads [offset, offset + out.size()) of the file.
  void read(std::uint64_t offset, std::span<std::byte> out) const { file_.read(offset, out); }
  /// @throws InputError if the file was changed since it was opened.
  void expect_unchanged() const { file_.expect_unchanged(); }

 private:
  File file_;
  std::vector<std::byte> raw_header_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// A tensor to be written: `data` must hold exactly the bytes that dtype and shape ask for.
struct TensorData {
  std::string name;
  DType dtype{};
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes a whole file: tensors by dtype (descending) then name, header padded to 8 bytes, metadata
/// {"format": "pt"}. Atomic: the file appears complete or not at all.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorData> tensors);

}  // namespace mrp::io
