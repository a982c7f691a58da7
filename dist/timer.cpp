#include "dist/timer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "dist/agree.hpp"
#include "dist/error.hpp"

namespace mrp::dist {

Timers::Scope::Scope(Timers& timers, const std::string& name)
    : timers_(timers), parent_(timers.current_) {
  timers_.current_ = parent_.empty() ? name : parent_ + "/" + name;
  entry_ = timers_.entry(timers_.current_);
  start_ = std::chrono::steady_clock::now();
}

Timers::Scope::~Scope() {
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  Local& local = timers_.entries_[entry_];
  ++local.calls;
  local.seconds += passed.count();
  timers_.current_ = parent_;
}

std::size_t Timers::entry(const std::string& name) {
  const auto found = std::ranges::find(entries_, name, &Local::name);
  const auto index = static_cast<std::size_t>(found - entries_.begin());
  if (found == entries_.end()) entries_.push_back({name});
  return index;
}

std::vector<TimerEntry> Timers::reduce(const Communicator& comm) const {
  std::string names;
  for (const Local& local : entries_) names += local.name + '\n';
  const std::string root_names = comm.broadcast(names);
  agree(comm, [&] {
    if (names == root_names) return;
    const auto [mine, root] = std::ranges::mismatch(names, root_names);
    const auto line_at = [](const std::string& text, std::ptrdiff_t position) -> std::string {
      if (position >= std::ssize(text)) return "no further scope";
      const auto before = text.rfind('\n', static_cast<std::size_t>(position));
      const std::size_t begin = position == 0 || before == std::string::npos ? 0 : before + 1;
      return text.substr(begin, text.find('\n', begin) - begin);
    };
    throw ContractError("same timers on all ranks",
                        fmt::format("rank {} has '{}' where rank 0 has '{}'", comm.rank(),
                                    line_at(names, mine - names.begin()),
                                    line_at(root_names, root - root_names.begin())),
                        std::source_location::current());
  });
  std::vector<std::int64_t> calls;
  std::vector<double> sums;
  for (const Local& local : entries_) {
    calls.push_back(local.calls);
    sums.push_back(local.seconds);
  }
  std::vector<double> least = sums;
  std::vector<double> most = sums;
  comm.all_reduce(std::span(calls), ReduceOp::max);
  comm.all_reduce(std::span(sums), ReduceOp::sum);
  comm.all_reduce(std::span(least), ReduceOp::min);
  comm.all_reduce(std::span(most), ReduceOp::max);
  std::vector<TimerEntry> result;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    result.push_back({entries_[i].name, calls[i], least[i], sums[i] / comm.size(), most[i]});
  }
  return result;
}

std::uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    std::uint64_t kibibytes = 0;
    if (key == "VmHWM:" && status >> kibibytes) return kibibytes * 1024;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

void reset_peak_memory() {
  std::ofstream("/proc/self/clear_refs") << 5;
}

}  // namespace mrp::dist
