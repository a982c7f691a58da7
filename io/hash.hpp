// XXH3-128 for fingerprints and change detection, SHA-256 for the evidence in the manifest.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mrp::io {

inline constexpr std::size_t xxh3_digits = 32;

/// xxh3_digits hexadecimal digits, as `xxh128sum` prints them. Fast, not safe against forgery.
std::string xxh3_128(std::string_view data);
std::string xxh3_128(std::span<const std::byte> data);

/// Incremental SHA-256; 64 hexadecimal digits.
class Sha256 {
 public:
  static constexpr std::size_t digits = 64;

  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void update(std::span<const std::byte> data);
  /// The digest; the object is spent afterwards.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// @throws InputError, ResourceError as File does.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace mrp::io
