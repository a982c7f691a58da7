// Invented hidden states in states.h5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/state_store.hpp"

namespace mrp::bench {

/// Collective over `comm`. Sites `sites.0`, `sites.1`, … of these widths in bf16, 16 rows a
/// sequence. The i-th of the directions of a site has variance 1/i, half of it common to the rows
/// of a sequence; in forget rows the last 16 have 0.5 to 1.25 instead. The same for any number of
/// ranks.
void write_states(const std::filesystem::path& path, std::int64_t forget_rows,
                  std::int64_t retain_rows, const std::vector<std::int64_t>& widths,
                  const dist::Communicator& comm);

}  // namespace mrp::bench
