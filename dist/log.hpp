// One line per event, printed by rank 0 only; progress with rate and time left.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace mrp::dist::log {

/// Rank 0 prints to stderr as "12:34:56 solve: text". Call once per process, before the first line.
void open(int rank);

void info(const std::string& text);
void warn(const std::string& text);

/// Progress of work with a known amount. On a terminal one line is redrawn, elsewhere a line is
/// written at most every 10 s; nothing is shown for work under 5 s. Not collective; only rank 0
/// prints.
class Progress {
 public:
  using Clock = std::chrono::steady_clock::time_point (*)();

  /// `what` names the work, `unit` what is counted ("tokens", "MB", "sites"); `total` 0 if unknown.
  Progress(std::string what, std::int64_t total, std::string unit,
           Clock now = &std::chrono::steady_clock::now);
  /// Prints the final line if anything was shown.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// What was done before: of the share, not of the rate.
  void skip(std::int64_t amount);
  void advance(std::int64_t amount);

 private:
  void print(bool last);

  std::string what_;
  std::string unit_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::int64_t skipped_ = 0;  ///< of that
  Clock now_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point printed_;
  bool shown_ = false;
};

}  // namespace mrp::dist::log
