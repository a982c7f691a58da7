#include "dist/traffic.hpp"

#include <atomic>

namespace mrp::dist {
namespace {

std::atomic<std::uint64_t> total = 0;

}  // namespace

std::uint64_t bytes_sent() noexcept {
  return total;
}

void count_sent(std::uint64_t bytes) noexcept {
  total += bytes;
}

}  // namespace mrp::dist
