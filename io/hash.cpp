#include "io/hash.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "dist/error.hpp"
#include "io/file.hpp"

namespace mrp::io {

struct Sha256::State {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(),
                                                                  &EVP_MD_CTX_free};
};

std::string xxh3_128(std::string_view data) {
  const auto hash = XXH3_128bits(data.data(), data.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string xxh3_128(std::span<const std::byte> data) {
  return xxh3_128(std::string_view(reinterpret_cast<const char*>(data.data()), data.size()));
}

Sha256::Sha256() : state_(std::make_unique<State>()) {
  // Fails when memory is short, or when the system's OpenSSL policy forbids the algorithm.
  if (!state_->context || EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) != 1) {
    throw dist::ResourceError("OpenSSL cannot start SHA-256");
  }
}

Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> data) {
  MRP_EXPECT(state_ != nullptr, "finished");
  if (EVP_DigestUpdate(state_->context.get(), data.data(), data.size()) != 1) {
    throw dist::ResourceError("OpenSSL failed in SHA-256");
  }
}

std::string Sha256::finish() {
  MRP_EXPECT(state_ != nullptr, "finished");
  std::array<unsigned char, 32> digest{};
  if (EVP_DigestFinal_ex(state_->context.get(), digest.data(), nullptr) != 1) {
    throw dist::ResourceError("OpenSSL failed in SHA-256");
  }
  state_.reset();
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

std::string sha256_file(const std::filesystem::path& path) {
  constexpr std::uint64_t block = std::uint64_t{4} << 20;
  const File file(path);
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(block, file.size())));
  Sha256 hash;
  for (std::uint64_t offset = 0; offset < file.size(); offset += block) {
    const auto count = static_cast<std::size_t>(std::min(block, file.size() - offset));
    const auto part = std::span(buffer).first(count);
    file.read(offset, part);
    hash.update(part);
  }
  file.expect_unchanged();
  return hash.finish();
}

}  // namespace mrp::io
