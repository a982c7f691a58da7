// The directory of an unlearned checkpoint: written beside its place, recognised by a mark,
// published whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mrp::shard {

/// File in every checkpoint that mrp writes: {"format": "mrp.checkpoint", "version": 1,
/// "fingerprint": …, "tensors": …}. Only a directory that holds it may be replaced.
inline constexpr const char* kMarkName = "mrp.json";

/// The fingerprint with which merge wrote `directory`, or "" if it is no unlearned checkpoint of
/// ours.
std::string merged_fingerprint(const std::filesystem::path& directory);

/// combined_digest (tensor_digests.hpp) of what merge wrote there, or "".
std::string merged_digest(const std::filesystem::path& directory);

/// One rank uses it. The directory grows under its partial name, a sibling, until `publish`.
class OutputDirectory {
 public:
  /// Absolute, without a trailing slash.
  explicit OutputDirectory(const std::filesystem::path& output);

  const std::filesystem::path& path() const noexcept { return path_; }
  const std::filesystem::path& partial() const noexcept { return partial_; }

  /// Creates an empty partial directory with our mark in it; a partial directory that a killed run
  /// left is removed. @throws InputError if `path` or the partial name is taken by something that
  /// is not ours; UsageError if `path` holds the input; ResourceError if fewer than `bytes` are
  /// free.
  void create(const std::filesystem::path& input, std::uint64_t bytes,
              const std::string& fingerprint) const;
  /// Writes the mark, with the digest of all tensors. @throws ResourceError.
  void write_mark(const std::string& fingerprint, const std::string& tensors) const;
  /// Gives the directory its name; an older one of ours is replaced. @throws ResourceError.
  void publish() const;
  /// Removes the partial directory. Never throws.
  void discard() const noexcept;

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
};

/// A new file of the partial directory with its final size, which several processes then fill side
/// by side. @throws ResourceError.
void create_file(const std::filesystem::path& path, std::uint64_t size);

}  // namespace mrp::shard
