// File descriptors with an owner, and files that appear complete or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace mrp::io {

/// A regular file open for reading. Not collective.
/// @throws InputError: missing, unreadable, not a regular file, shorter than what is asked for.
/// @throws ResourceError: the operating system failed (I/O error, too many open files).
class File {
 public:
  explicit File(const std::filesystem::path& path);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  /// Fills `out` from `offset`. Thread-safe (pread).
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  /// Bytes when it was opened.
  std::uint64_t size() const noexcept { return size_; }
  /// @throws InputError if the file has another size or modification time now than when it was
  /// opened.
  void expect_unchanged() const;
  /// Nanoseconds since the epoch, when it was opened.
  std::int64_t modified() const noexcept { return modified_; }
  const std::filesystem::path& path() const noexcept { return path_; }
  int descriptor() const noexcept { return descriptor_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::int64_t modified_ = 0;
};

/// The temporary name under which `path` is written: "<path>.partial".
std::filesystem::path partial_path(const std::filesystem::path& path);
/// Syncs partial_path(path), renames it to `path`, syncs the directory. One rank calls it.
void publish(const std::filesystem::path& path);

/// A file being written by one process under its partial name; removed again unless published.
/// @throws ResourceError when the disk or quota is full, InputError when the place cannot be
/// written.
class OutputFile {
 public:
  /// Creates partial_path(path), or empties it.
  explicit OutputFile(const std::filesystem::path& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  /// Appends.
  void write(std::span<const std::byte> bytes);
  /// Bytes appended so far.
  std::uint64_t size() const noexcept { return size_; }
  /// Makes the file visible under its own name. Nothing can be written afterwards.
  void publish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// Whole small files. The write is atomic. @throws InputError, ResourceError.
std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes = 1u << 30);
void write_text(const std::filesystem::path& path, std::string_view text);

/// Free bytes on the file system of `directory` (or of its nearest existing parent).
std::uint64_t free_space(const std::filesystem::path& directory);
/// @throws ResourceError if fewer than `bytes` are free; `what` names what was to be written.
void require_space(const std::filesystem::path& directory, std::uint64_t bytes,
                   const std::string& what);

}  // namespace mrp::io
