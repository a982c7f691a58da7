#include "shard/edit/output_directory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "dist/error.hpp"
#include "io/direct_file.hpp"
#include "io/file.hpp"

namespace mrp::shard {

namespace fs = std::filesystem;
using dist::InputError;
using dist::ResourceError;

namespace {

constexpr const char* kFormat = "mrp.checkpoint";

[[noreturn]] void fail(const char* action, const fs::path& path, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw ResourceError(fmt::format("cannot {} {}: {}{}", action, path.string(),
                                  std::generic_category().message(error),
                                  full ? "; free some space or choose another directory" : ""));
}

/// The mark of `directory` as JSON, or null.
nlohmann::json read_mark(const fs::path& directory) {
  std::error_code error;
  const fs::path path = directory / kMarkName;
  if (!fs::is_regular_file(path, error)) return {};
  nlohmann::json mark =
      nlohmann::json::parse(io::read_text(path, 1u << 20), nullptr, /*allow_exceptions=*/false);
  const bool ours = mark.is_object() && mark.value("format", nlohmann::json()) == kFormat &&
                    mark.value("fingerprint", nlohmann::json()).is_string();
  return ours ? mark : nlohmann::json();
}

bool is_missing_or_empty(const fs::path& path) {
  const fs::file_status status = fs::symlink_status(path);
  if (!fs::exists(status)) return true;
  return fs::is_directory(status) && fs::is_empty(path);
}

/// @throws InputError unless `path` is free, empty or ours.
void require_replaceable(const fs::path& path) {
  if (is_missing_or_empty(path)) return;
  if (fs::is_symlink(path) || !fs::is_directory(path)) {
    throw InputError(
        fmt::format("{} exists and is not a directory; choose another output", path.string()));
  }
  if (read_mark(path).is_null()) {
    throw InputError(
        fmt::format("{} exists and was not written by mrp (it holds no {}), so it is left alone; "
                    "choose another output or remove it",
                    path.string(), kMarkName));
  }
}

/// @throws UsageError if replacing `output` would remove `input`.
void require_apart(const fs::path& output, const fs::path& input) {
  const fs::path real_output = fs::weakly_canonical(output);
  for (fs::path p = fs::canonical(input);; p = p.parent_path()) {
    if (p == real_output) {
      throw dist::UsageError(
          fmt::format("the output {} is or holds the input checkpoint {}; choose another output",
                      output.string(), input.string()));
    }
    if (p == p.root_path()) return;
  }
}

void sync_directory(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("open", path, errno);
  const int status = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some network file systems cannot sync a directory.
  if (status != 0 && error != EINVAL) fail("sync", path, error);
}

}  // namespace

std::string merged_fingerprint(const fs::path& directory) {
  const nlohmann::json mark = read_mark(directory);
  return mark.is_null() ? std::string() : mark["fingerprint"].get<std::string>();
}

std::string merged_digest(const fs::path& directory) {
  const nlohmann::json mark = read_mark(directory);
  const auto found = mark.is_null() ? mark.end() : mark.find("tensors");
  return found != mark.end() && found->is_string() ? found->get<std::string>() : std::string();
}

OutputDirectory::OutputDirectory(const fs::path& output)
    : path_(fs::absolute(output).lexically_normal()) {
  if (!path_.has_filename()) path_ = path_.parent_path();
  partial_ = io::partial_path(path_);
}

void OutputDirectory::create(const fs::path& input, std::uint64_t bytes,
                             const std::string& fingerprint) const {
  try {
    require_apart(path_, input);
    require_replaceable(path_);
    require_replaceable(partial_);
    fs::remove_all(partial_);
    io::require_space(path_.parent_path(), bytes, fmt::format("the checkpoint {}", path_.string()));
    fs::create_directories(partial_);
  } catch (const fs::filesystem_error& error) {
    throw ResourceError(fmt::format("cannot prepare {}: {}", path_.string(), error.what()));
  }
  write_mark(fingerprint, "");
}

void OutputDirectory::write_mark(const std::string& fingerprint, const std::string& tensors) const {
  const nlohmann::json mark = {
      {"format", kFormat}, {"version", 1}, {"fingerprint", fingerprint}, {"tensors", tensors}};
  io::write_text(partial_ / kMarkName, mark.dump(1) + "\n");
}

void OutputDirectory::publish() const {
  sync_directory(partial_);
  require_replaceable(path_);  // it may have changed during a long run
  fs::path old = path_;
  old += ".replaced";
  std::error_code error;
  const bool replace = fs::exists(path_);
  if (replace) {
    require_replaceable(old);
    fs::remove_all(old, error);
    if (::rename(path_.c_str(), old.c_str()) != 0) fail("rename", path_, errno);
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    if (replace) ::rename(old.c_str(), path_.c_str());
    fail("rename to", path_, reason);
  }
  sync_directory(path_.parent_path());
  fs::remove_all(old, error);
}

void OutputDirectory::discard() const noexcept {
  std::error_code error;
  fs::remove_all(partial_, error);
}

void create_file(const fs::path& path, std::uint64_t size) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor < 0) fail("create", path, errno);
  ::close(descriptor);
  io::DirectFile(path, io::DirectFile::Access::write).allocate(size);
}

}  // namespace mrp::shard
