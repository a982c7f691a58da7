#include "solver/null_edge.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "dist/error.hpp"

namespace mrp::solver {
namespace {

constexpr int divisions = 3;
constexpr std::int64_t leading = 4;
constexpr std::int64_t fewest_sequences = 8;

}  // namespace

double measure_null_edge(Space& space, const Pool& pool) {
  if (pool.sequence_count() < fewest_sequences) {
    throw dist::InputError(
        fmt::format("an automatic dimension needs at least {} sequences in forget and retain "
                    "together, there are "
                    "{}: set subspace.dimension",
                    fewest_sequences, pool.sequence_count()));
  }
  double largest = 0, spread = 0;
  for (int draw = 0; draw < divisions; ++draw) {
    const RowMask mask = random_division(pool, static_cast<std::uint64_t>(draw));
    const auto marked = std::count(mask.begin(), mask.end(), std::uint8_t{1});
    if (marked == 0 || marked == pool.rows()) {
      throw dist::InputError(
          "an automatic dimension needs sequences that can be divided like forget and retain; one "
          "sequence holds nearly everything: set subspace.dimension");
    }
    const std::int64_t k = std::min<std::int64_t>({leading, marked, pool.width()});
    const auto values = space.division_values(mask, k);
    largest = std::max(largest, values.front());
    spread += (values.front() - values.back()) / divisions;
  }
  return largest + spread;
}

}  // namespace mrp::solver
