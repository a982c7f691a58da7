// A failure on one rank becomes the same failure on all, so that nobody waits in a collective for
// ever.
#pragma once

#include <exception>
#include <optional>
#include <utility>

#include "dist/communicator.hpp"

namespace mrp::dist {

/// Collective over `comm`. `failure` is this rank's caught exception or null. If any rank has one,
/// all ranks throw an Error with the message and exit code of the lowest failing rank.
void throw_together(const Communicator& comm, std::exception_ptr failure);

/// Collective over `comm`. Runs `work` (which must not communicate on `comm`) and returns its
/// result; if it throws on any rank, every rank throws the same Error.
template <class Work>
auto agree(const Communicator& comm, Work&& work) {
  std::exception_ptr failure;
  if constexpr (std::is_void_v<decltype(work())>) {
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    throw_together(comm, failure);
  } else {
    std::optional<decltype(work())> result;
    try {
      result.emplace(work());
    } catch (...) {
      failure = std::current_exception();
    }
    throw_together(comm, failure);
    return std::move(*result);
  }
}

}  // namespace mrp::dist
