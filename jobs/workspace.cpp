#include "jobs/workspace.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "dist/error.hpp"
#include "dist/log.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;

std::string os_error(int code) {
  return std::generic_category().message(code);
}

void create_private(const fs::path& directory) {
  std::error_code error;
  if (directory.has_parent_path()) fs::create_directories(directory.parent_path(), error);
  if (!error && ::mkdir(directory.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    error = std::error_code(errno, std::generic_category());
  }
  if (!error && !fs::is_directory(directory, error) && !error) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (error) {
    throw dist::ResourceError(
        fmt::format("cannot create the work directory {}: {}; set work: to another place",
                    directory.string(), error.message()));
  }
}

/// Who holds the lock, as its file says.
std::string holder(int descriptor) {
  std::array<char, 200> text{};
  const ssize_t count = ::pread(descriptor, text.data(), text.size(), 0);
  if (count <= 0) return "another job";
  const std::string line(text.data(), static_cast<std::size_t>(count));
  return line.substr(0, line.find('\n'));
}

/// True while `path` still names the open file: its last holder may have removed it in between.
bool is_same_file(int descriptor, const fs::path& path) {
  struct stat open_file {
  }, named{};
  return ::fstat(descriptor, &open_file) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open_file.st_ino == named.st_ino && open_file.st_dev == named.st_dev;
}

/// An open, locked descriptor, or −1 if the file vanished in between.
int try_lock(const fs::path& directory, const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (descriptor < 0) {
    throw dist::ResourceError(
        fmt::format("cannot write into {}: {}; check its permissions or set work: to another place",
                    directory.string(), os_error(errno)));
  }
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
    if (is_same_file(descriptor, path)) return descriptor;
    ::close(descriptor);
    return -1;
  }
  const int code = errno;
  if (code != EWOULDBLOCK) {
    dist::log::warn(fmt::format("no file locks on {} ({}); do not run two jobs there at once",
                                directory.string(), os_error(code)));
    return descriptor;
  }
  const std::string who = holder(descriptor);
  ::close(descriptor);
  throw dist::ResourceError(fmt::format(
      "{} is in use by {}; wait for it or set work: to another place", directory.string(), who));
}

}  // namespace

WorkLock::WorkLock(const fs::path& directory) : directory_(directory) {
  while (descriptor_ < 0) {
    create_private(directory_);
    descriptor_ = try_lock(directory_, directory_ / "lock");
  }
  std::array<char, 65> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string line = fmt::format("process {} on {}\n", ::getpid(), host.data());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size())) {
    const int code = errno;
    ::close(descriptor_);
    throw dist::ResourceError(
        fmt::format("cannot write {}: {}; free some space or set work: to another place",
                    (directory_ / "lock").string(), os_error(code)));
  }
}

WorkLock::~WorkLock() {
  std::error_code ignored;
  fs::remove(directory_ / "lock", ignored);
  fs::remove(directory_, ignored);  // only succeeds when nothing else is in it
  ::close(descriptor_);
}

}  // namespace mrp::jobs
