#include "io/direct_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "dist/error.hpp"

namespace mrp::io {

namespace {

constexpr std::uint64_t page = PageBuffer::page;
// Linux transfers at most this many bytes per call; whole pages.
constexpr std::uint64_t max_transfer = 0x7ffff000;

std::uint64_t page_floor(std::uint64_t offset) {
  return offset / page * page;
}
std::uint64_t page_ceiling(std::uint64_t offset) {
  return page_floor(offset + page - 1);
}

[[noreturn]] void fail(const char* action, const std::filesystem::path& path, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw dist::ResourceError(fmt::format(
      "cannot {} {}: {}{}", action, path.string(), std::generic_category().message(error),
      full ? "; free some space or choose another directory" : ""));
}

}  // namespace

void PageBuffer::Unmap::operator()(std::byte* memory) const {
  ::munmap(memory, bytes);
}

std::span<std::byte> PageBuffer::fit(std::uint64_t offset, std::uint64_t bytes) {
  const std::uint64_t begin = page_floor(offset);
  const std::uint64_t needed = std::max(page_ceiling(offset + bytes) - begin, page);
  if (!memory_ || needed > memory_.get_deleter().bytes) {
    memory_.reset();
    void* const memory =
        ::mmap(nullptr, needed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = {static_cast<std::byte*>(memory), Unmap{needed}};
  }
  return {memory_.get() + (offset - begin), static_cast<std::size_t>(bytes)};
}

DirectFile::DirectFile(const std::filesystem::path& path, Access access) : path_(path) {
  const int flags = O_CLOEXEC | (access == Access::read ? O_RDONLY : O_WRONLY | O_NOFOLLOW);
  cached_ = ::open(path.c_str(), flags);
  if (cached_ < 0) fail("open", path, errno);
  direct_ = ::open(path.c_str(), flags | O_DIRECT);
}

DirectFile::DirectFile(DirectFile&& other) noexcept
    : path_(std::move(other.path_)),
      cached_(std::exchange(other.cached_, -1)),
      direct_(std::exchange(other.direct_, -1)) {}

DirectFile::~DirectFile() {
  if (direct_ >= 0) ::close(direct_);
  if (cached_ >= 0) ::close(cached_);
}

std::span<std::byte> DirectFile::read(std::uint64_t offset, std::uint64_t bytes,
                                      PageBuffer& buffer) const {
  const std::span<std::byte> wanted = buffer.fit(offset, bytes);
  const std::uint64_t end = offset + bytes;
  int descriptor = direct_ >= 0 ? direct_ : cached_;
  // Whole pages into the buffer; the last one of the file may be short.
  for (std::uint64_t at = page_floor(offset); at < end;) {
    std::byte* const target = wanted.data() - (offset - at);
    const std::uint64_t count = std::min(page_ceiling(end) - at, max_transfer);
    const ssize_t got = ::pread(descriptor, target, count, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EINVAL && descriptor == direct_) {
      descriptor = cached_;
      continue;
    }
    if (got < 0) fail("read", path_, errno);
    at += static_cast<std::uint64_t>(got);
    if (at < end && (got == 0 || at % page != 0)) {
      throw dist::ResourceError(
          fmt::format("{} ends at byte {}, but bytes up to {} are needed; something shortened it",
                      path_.string(), at, end));
    }
  }
  return wanted;
}

void DirectFile::write_fully(int descriptor, std::uint64_t offset,
                             std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const std::size_t count = std::min<std::size_t>(bytes.size(), max_transfer);
    const ssize_t put = ::pwrite(descriptor, bytes.data(), count, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    const bool refused = put < 0 && errno == EINVAL && descriptor == direct_;
    // A short direct write ends where the disk is full; the rest tells why.
    const bool uneven = put >= 0 && static_cast<std::uint64_t>(put) % page != 0;
    if (refused || (uneven && descriptor == direct_)) descriptor = cached_;
    if (refused) continue;
    if (put < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

void DirectFile::write(std::uint64_t offset, std::span<const std::byte> bytes) const {
  const std::uint64_t end = offset + bytes.size();
  const std::uint64_t first = page_ceiling(offset), last = page_floor(end);
  const bool fits = (reinterpret_cast<std::uintptr_t>(bytes.data()) - offset) % page == 0;
  if (direct_ < 0 || !fits || first >= last) return write_fully(cached_, offset, bytes);
  write_fully(cached_, offset, bytes.first(first - offset));
  write_fully(direct_, first, bytes.subspan(first - offset, last - first));
  write_fully(cached_, last, bytes.last(end - last));
}

void DirectFile::sync() const {
  if (::fsync(cached_) != 0) fail("sync", path_, errno);
}

void DirectFile::allocate(std::uint64_t bytes) const {
  if (bytes == 0) return;  // fallocate refuses it
  const auto length = static_cast<off_t>(bytes);
  // Not posix_fallocate, which writes into every block where the file system cannot reserve.
  int status = ::fallocate(cached_, 0, 0, length);
  if (status != 0 && (errno == EOPNOTSUPP || errno == EINVAL))
    status = ::ftruncate(cached_, length);
  if (status != 0) fail("allocate", path_, errno);
}

}  // namespace mrp::io
