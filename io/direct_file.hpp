// Transfers between a file and memory that bypass the page cache where the file system can: no
// copy, no memory beside the caller's, and what is read comes from the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace mrp::io {

/// Memory for a part of a file. It lies in a page as the part lies in a page of the file, which
/// direct transfers ask for. Given back to the system at once, not to the heap of a thread.
class PageBuffer {
 public:
  static constexpr std::uint64_t page = 4096;

  /// Memory for bytes [offset, offset + bytes) of a file, contents undefined, valid until the next
  /// call. Around it lies what the first and the last page need.
  std::span<std::byte> fit(std::uint64_t offset, std::uint64_t bytes);

 private:
  struct Unmap {
    std::uint64_t bytes;
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Unmap> memory_;
};

/// An existing regular file. Not collective; several processes may fill or read parts side by side.
class DirectFile {
 public:
  enum class Access { read, write };

  /// Links are not followed when writing. @throws ResourceError.
  DirectFile(const std::filesystem::path& path, Access access);
  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&&) = delete;
  ~DirectFile();

  /// Bytes [offset, offset + bytes) into `buffer`. @throws ResourceError, also if the file is
  /// shorter.
  std::span<std::byte> read(std::uint64_t offset, std::uint64_t bytes, PageBuffer& buffer) const;
  /// Whole pages go straight to the disk if `bytes` lie where a PageBuffer for `offset` lies;
  /// everything else goes through the page cache. @throws ResourceError.
  void write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  /// What this process wrote is on the disk afterwards (network file systems need it of every
  /// writer).
  void sync() const;
  /// Reserves the blocks of a file of `bytes`, which it has afterwards. Not every file system can;
  /// there the size alone must do. @throws ResourceError.
  void allocate(std::uint64_t bytes) const;

 private:
  void write_fully(int descriptor, std::uint64_t offset, std::span<const std::byte> bytes) const;

  std::filesystem::path path_;
  int cached_ = -1;
  int direct_ = -1;  ///< −1 if the file system has no direct transfers
};

}  // namespace mrp::io
