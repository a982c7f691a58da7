// Nested wall-clock timers, reduced over ranks, and the peak memory of a stage.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dist/communicator.hpp"

namespace mrp::dist {

struct TimerEntry {
  std::string name;  ///< path of nested names, "capture/forward"
  std::int64_t calls = 0;
  double min = 0, mean = 0, max = 0;  ///< seconds over ranks
};

/// Time spent in named scopes of this rank. Scopes nest; the same names must be met on all ranks,
/// in the same order. Not for use by several threads.
class Timers {
 public:
  class Scope {
   public:
    Scope(Timers& timers, const std::string& name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Timers& timers_;
    std::string parent_;
    std::size_t entry_;
    std::chrono::steady_clock::time_point start_;
  };

  /// Collective over `comm`. Entries in the order in which their scopes were first entered; calls
  /// are the most of any rank. @throws Error naming the first scope that differs between ranks.
  std::vector<TimerEntry> reduce(const Communicator& comm) const;

 private:
  struct Local {
    std::string name;
    std::int64_t calls = 0;
    double seconds = 0;
  };
  std::size_t entry(const std::string& name);

  std::vector<Local> entries_;
  std::string current_;
};

/// Peak resident memory of this process in bytes since the last reset (Linux; 0 where unknown).
std::uint64_t peak_memory();
/// Starts a new peak measurement where the kernel allows it.
void reset_peak_memory();

}  // namespace mrp::dist
