#include "dist/log.hpp"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

namespace mrp::dist::log {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr auto hidden_time = std::chrono::seconds(5);
constexpr auto line_interval = std::chrono::seconds(10);
constexpr auto redraw_interval = std::chrono::milliseconds(200);

struct State {
  spdlog::logger logger{"mrp", std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  bool prints = true;
  bool line_is_open = false;  // a progress line without its newline stands on the terminal

  State() {
    logger.set_pattern("%H:%M:%S %v");
    logger.flush_on(spdlog::level::trace);
  }
};

State& state() {
  static State instance;
  return instance;
}

void erase_open_line() {
  if (!std::exchange(state().line_is_open, false)) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void write(const std::string& text) {
  if (!state().prints) return;
  erase_open_line();
  state().logger.info("{}", text);
}

/// Three digits, without an exponent: "12345", "1.23".
std::string rate_text(double rate) {
  return rate >= 100 ? fmt::format("{:.0f}", rate) : fmt::format("{:.3g}", rate);
}

/// "1:02:03" or "2:03".
std::string clock_text(double seconds) {
  const auto total = static_cast<std::int64_t>(seconds);
  const std::int64_t hours = total / 3600;
  const std::int64_t minutes = total / 60 % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60)
                   : fmt::format("{}:{:02}", minutes, total % 60);
}

}  // namespace

void open(int rank) {
  state().prints = rank == 0;
}

void info(const std::string& text) {
  write(text);
}

void warn(const std::string& text) {
  write("warning: " + text);
}

Progress::Progress(std::string what, std::int64_t total, std::string unit, Clock now)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      now_(now),
      start_(now()),
      printed_(start_) {}

Progress::~Progress() {
  if (shown_) print(true);
}

void Progress::skip(std::int64_t amount) {
  done_ += amount;
  skipped_ += amount;
}

void Progress::advance(std::int64_t amount) {
  done_ += amount;
  const auto now = now_();
  if (!state().prints || now - start_ < hidden_time) return;
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (now - printed_ >= (terminal ? redraw_interval : line_interval) || !shown_) print(false);
}

void Progress::print(bool last) {
  const auto now = now_();
  const double elapsed = Seconds(now - start_).count();
  const double rate = static_cast<double>(done_ - skipped_) / std::max(elapsed, 1e-9);
  std::string text = fmt::format("{}: ", what_);
  if (total_ > 0) text += fmt::format("{} %, ", 100 * done_ / total_);
  text += fmt::format("{} {}, {} {}/s", done_, unit_, rate_text(rate), unit_);
  if (last) {
    text += fmt::format(", {} in all", clock_text(elapsed));
  } else if (done_ > skipped_ && done_ < total_) {
    text += fmt::format(", {} left", clock_text(static_cast<double>(total_ - done_) / rate));
  }
  write(text);
  if (!last && isatty(STDERR_FILENO) == 1) {
    // The cursor goes back up, so that the next line replaces this one.
    std::fputs("\x1b[A", stderr);
    std::fflush(stderr);
    state().line_is_open = true;
  }
  printed_ = now;
  shown_ = true;
}

}  // namespace mrp::dist::log
