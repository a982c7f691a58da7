// How a job ends when something was thrown: printed once, with the right exit code, without
// hanging.
#pragma once

#include <chrono>
#include <exception>

#include "dist/communicator.hpp"

namespace mrp::jobs {

/// Called by a rank that caught `failure`. `comm` must serve nothing else: the other ranks may be
/// waiting in a collective of another communicator. If all ranks come here within `patience`, the
/// failure is common: rank 0 prints its line and all return rank 0's exit code. If not, this rank
/// failed alone, and it ends the whole job.
int end_after_failure(const dist::Communicator& comm, const std::exception_ptr& failure,
                      std::chrono::milliseconds patience = std::chrono::seconds(2));

}  // namespace mrp::jobs
