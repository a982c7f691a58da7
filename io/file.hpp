// File descriptors with an owner, and files that appear complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace mrp::io {

/// A file open for reading. @throws InputError (missing, not a regular file, short read).
class File {
 public:
  explicit File(const std::filesystem::path& path);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  /// Fills `out` from `offset`. Thread-safe (pread).
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  std::uint64_t size() const noexcept { return size_; }
  const std::filesystem::path& path() const noexcept { return path_; }
  int descriptor() const noexcept { return descriptor_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// The temporary name under which `path` is written: "<path>.partial".
std::filesystem::path partial_path(const std::filesystem::path& path);
/// Syncs partial_path(path), renames it to `path`, syncs the directory. One rank calls it.
void publish(const std::filesystem::path& path);

/// Whole small files. The write is atomic. @throws InputError, ResourceError.
std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes = 1u << 30);
void write_text(const std::filesystem::path& path, std::string_view text);

/// Free bytes on the file system of `directory` (or of its nearest existing parent).
std::uint64_t free_space(const std::filesystem::path& directory);
/// @throws ResourceError if fewer than `bytes` are free; `what` names what was to be written.
void require_space(const std::filesystem::path& directory, std::uint64_t bytes, const std::string& what);

}  // namespace mrp::io
