// What this process has handed to collectives, whoever carries it.
#pragma once

#include <cstdint>

namespace mrp::dist {

/// Payload in bytes since the start: once per call, a broadcast counts at its root.
std::uint64_t bytes_sent() noexcept;
void count_sent(std::uint64_t bytes) noexcept;

}  // namespace mrp::dist
