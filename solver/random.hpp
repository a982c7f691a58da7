// Random numbers that are the same with every compiler and on every rank (the standard's
// distributions are not).
#pragma once

#include <cstdint>
#include <vector>

#include "solver/tall.hpp"

namespace mrp::solver {

/// Fisher–Yates shuffle, a function of `seed` alone.
void shuffle(std::vector<std::int64_t>& values, std::uint64_t seed);

/// [rows × columns] independent standard normal numbers.
Tall random_normal(std::int64_t rows, std::int64_t columns, std::uint64_t seed);

}  // namespace mrp::solver
