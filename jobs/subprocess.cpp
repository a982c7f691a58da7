#include "jobs/subprocess.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "dist/error.hpp"

extern char** environ;

namespace mrp::jobs {
namespace {

[[noreturn]] void fail(const std::string& what, int code) {
  throw dist::ResourceError(
      fmt::format("cannot {}: {}", what, std::generic_category().message(code)));
}

/// A pipe whose ends close themselves; neither end is inherited unless duplicated.
class Pipe {
 public:
  Pipe() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) fail("make a pipe", errno);
  }
  ~Pipe() {
    for (int& end : ends_) close_end(end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int read_end() const { return ends_[0]; }
  int write_end() const { return ends_[1]; }
  void close_write_end() { close_end(ends_[1]); }

 private:
  static void close_end(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
  std::array<int, 2> ends_{-1, -1};
};

/// Splits what arrives into lines.
class Lines {
 public:
  explicit Lines(std::function<void(const std::string&)> line) : line_(std::move(line)) {}

  /// False at the end of the stream.
  bool read(int descriptor) {
    std::array<char, 4096> buffer{};
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) return true;
    if (count <= 0) {
      if (!pending_.empty()) line_(pending_);
      return false;
    }
    pending_.append(buffer.data(), static_cast<std::size_t>(count));
    for (std::size_t end = pending_.find('\n'); end != std::string::npos;
         end = pending_.find('\n')) {
      line_(pending_.substr(0, end));
      pending_.erase(0, end + 1);
    }
    return true;
  }

 private:
  std::function<void(const std::string&)> line_;
  std::string pending_;
};

pid_t spawn(const std::vector<std::string>& arguments, int output, int errors) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
  pid_t child = 0;
  const int code = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) fail("start " + arguments[0], code);
  return child;
}

}  // namespace

Outcome run_program(const std::vector<std::string>& arguments,
                    const std::function<void(const std::string&)>& line) {
  Pipe output, errors;
  const pid_t child = spawn(arguments, output.write_end(), errors.write_end());
  output.close_write_end();
  errors.close_write_end();

  Outcome outcome;
  Lines output_lines(line);
  Lines error_lines([&](const std::string& text) {
    if (!text.empty()) outcome.last_error_line = text;
  });
  std::array<pollfd, 2> streams{{{output.read_end(), POLLIN, 0}, {errors.read_end(), POLLIN, 0}}};
  while (streams[0].fd >= 0 || streams[1].fd >= 0) {
    if (::poll(streams.data(), streams.size(), -1) < 0 && errno != EINTR)
      fail("wait for a pipe", errno);
    if (streams[0].revents != 0 && !output_lines.read(streams[0].fd)) streams[0].fd = -1;
    if (streams[1].revents != 0 && !error_lines.read(streams[1].fd)) streams[1].fd = -1;
  }

  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail("wait for " + arguments[0], errno);
  }
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace mrp::jobs
