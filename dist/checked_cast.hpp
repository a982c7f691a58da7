// Checked narrowing at the borders to MPI, BLAS, BLACS and HDF5, which count in other widths.
#pragma once

#include <string>
#include <utility>

#include "dist/error.hpp"

namespace mrp::dist {

/// `value` as To. @throws ContractError naming `what` if To cannot hold it.
template <class To, class From>
To checked_cast(From value, const char* what = "value",
                std::source_location where = std::source_location::current()) {
  if (!std::in_range<To>(value)) {
    throw ContractError(
        "in_range",
        std::string(what) + " = " + std::to_string(value) + " does not fit the target integer type",
        where);
  }
  return static_cast<To>(value);
}

}  // namespace mrp::dist
