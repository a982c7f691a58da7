// Writes parts of files, each while the caller makes the next one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <optional>
#include <span>

#include "io/direct_file.hpp"

namespace mrp::io {

/// Has one file open, which is synced when another one's turn comes. Not thread-safe.
class WriteBehind {
 public:
  WriteBehind() = default;
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  /// Returns when the part before is written; `bytes` must stay until the next call of anything
  /// here. @throws ResourceError, also for the part before.
  void write(const std::filesystem::path& file, std::uint64_t begin,
             std::span<const std::byte> bytes);
  /// For writes by the caller: nothing is under way. @throws ResourceError.
  const DirectFile& open(const std::filesystem::path& file);
  /// Everything is on the disk afterwards. @throws ResourceError.
  void finish();

 private:
  void wait();

  std::filesystem::path opened_;
  std::optional<DirectFile> file_;
  std::future<void> under_way_;  ///< its destructor waits
};

}  // namespace mrp::io
