#include "solver/random.hpp"

#include <cmath>
#include <numbers>
#include <random>
#include <utility>

namespace mrp::solver {
namespace {

// Uniform in (0, 1), 53 bits.
double uniform(std::mt19937_64& engine) {
  return (static_cast<double>(engine() >> 11) + 0.5) * 0x1p-53;
}

}  // namespace

void shuffle(std::vector<std::int64_t>& values, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  for (std::size_t i = values.size(); i > 1; --i) {
    const auto j = static_cast<std::size_t>(uniform(engine) * static_cast<double>(i));
    std::swap(values[i - 1], values[j]);
  }
}

Tall random_normal(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  Tall result(rows, columns);
  for (double& value : result.values) {  // Box–Muller
    const double radius = std::sqrt(-2 * std::log(uniform(engine)));
    value = radius * std::cos(2 * std::numbers::pi * uniform(engine));
  }
  return result;
}

}  // namespace mrp::solver
