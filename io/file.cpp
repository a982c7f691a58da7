#include "io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "dist/error.hpp"

namespace mrp::io {

using dist::InputError;
using dist::ResourceError;

namespace {

namespace fs = std::filesystem;

// Linux transfers at most this many bytes per call.
constexpr std::size_t max_transfer = 0x7ffff000;

/// `action` is the verb of the message: "cannot <action> FILE: No space left on device".
[[noreturn]] void fail(const char* action, const fs::path& path, int error) {
  const auto text = fmt::format("cannot {} {}: {}", action, path.string(),
                                std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
    case ENXIO:
      throw InputError(text);
    case ENOSPC:
    case EDQUOT:
      throw ResourceError(text + "; free some space or choose another directory");
    default:
      throw ResourceError(text);
  }
}

template <class Call>
auto retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

std::int64_t nanoseconds(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

struct stat status_of(int descriptor, const fs::path& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) fail("examine", path, errno);
  return status;
}

void sync(const fs::path& path, int flags) {
  const int descriptor = retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC); });
  if (descriptor < 0) fail("open", path, errno);
  const int status = retry([&] { return ::fsync(descriptor); });
  const int error = errno;
  ::close(descriptor);
  // Some network file systems cannot sync a directory; the rename is then as durable as it gets.
  if (status != 0 && !(error == EINVAL && (flags & O_DIRECTORY) != 0)) fail("sync", path, error);
}

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

File::File(const fs::path& path) : path_(path) {
  // O_NONBLOCK: a pipe must be refused below, not wait for a writer.
  descriptor_ = retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (descriptor_ < 0) fail("open", path, errno);
  try {
    const auto status = status_of(descriptor_, path);
    if (!S_ISREG(status.st_mode)) {
      throw InputError(fmt::format("{} is not a regular file", path.string()));
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
    modified_ = nanoseconds(status.st_mtim);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      modified_(other.modified_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  std::swap(modified_, other.modified_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void File::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) {
    throw InputError(fmt::format("{} has {} bytes, but bytes {} to {} are asked for",
                                 path_.string(), size_, offset, offset + out.size()));
  }
  while (!out.empty()) {
    const auto count = std::min(out.size(), max_transfer);
    const auto got =
        retry([&] { return ::pread(descriptor_, out.data(), count, static_cast<off_t>(offset)); });
    if (got < 0) fail("read", path_, errno);
    if (got == 0) {
      throw InputError(
          fmt::format("{} ends at byte {} although it had {} when it was opened; "
                      "something shortened it meanwhile",
                      path_.string(), offset, size_));
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void File::expect_unchanged() const {
  const auto now = status_of(descriptor_, path_);
  if (static_cast<std::uint64_t>(now.st_size) != size_ || nanoseconds(now.st_mtim) != modified_) {
    throw InputError(fmt::format("{} was changed while it was being read", path_.string()));
  }
}

fs::path partial_path(const fs::path& path) {
  auto partial = path;
  partial += ".partial";
  return partial;
}

void publish(const fs::path& path) {
  const auto partial = partial_path(path);
  sync(partial, O_WRONLY);
  if (::rename(partial.c_str(), path.c_str()) != 0) fail("rename to", path, errno);
  sync(directory_of(path), O_RDONLY | O_DIRECTORY);
}

OutputFile::OutputFile(const fs::path& path) : path_(path) {
  const auto partial = partial_path(path);
  // O_NOFOLLOW: a link planted under the partial name must not redirect the write.
  descriptor_ = retry([&] {
    return ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
  });
  if (descriptor_ < 0) fail("create", partial, errno);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_path(path_).c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  MRP_EXPECT(descriptor_ >= 0, "write after publish");
  while (!bytes.empty()) {
    const auto count = std::min(bytes.size(), max_transfer);
    const auto put = retry([&] { return ::write(descriptor_, bytes.data(), count); });
    if (put < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    size_ += static_cast<std::uint64_t>(put);
  }
}

void OutputFile::publish() {
  MRP_EXPECT(descriptor_ >= 0, "published twice");
  io::publish(path_);
  // Network file systems report late write errors here.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("close", path_, errno);
}

std::string read_text(const fs::path& path, std::uint64_t max_bytes) {
  const File file(path);
  if (file.size() > max_bytes) {
    throw InputError(fmt::format("{} has {} bytes; at most {} are read as text", path.string(),
                                 file.size(), max_bytes));
  }
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_text(const fs::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.publish();
}

std::uint64_t free_space(const fs::path& directory) {
  auto place = fs::absolute(directory).lexically_normal();
  struct statvfs status {};
  while (retry([&] { return ::statvfs(place.c_str(), &status); }) != 0) {
    const int error = errno;
    const auto parent = place.parent_path();
    if ((error != ENOENT && error != ENOTDIR) || parent == place) {
      fail("find the free space at", directory, error);
    }
    place = parent;
  }
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

void require_space(const fs::path& directory, std::uint64_t bytes, const std::string& what) {
  constexpr double mebibyte = 1024.0 * 1024.0;
  const auto free = free_space(directory);
  if (free < bytes) {
    throw ResourceError(fmt::format(
        "{} needs {:.1f} MiB in {}, but {:.1f} MiB are free there; free some space or choose "
        "another directory",
        what, static_cast<double>(bytes) / mebibyte, directory.string(),
        static_cast<double>(free) / mebibyte));
  }
}

}  // namespace mrp::io
