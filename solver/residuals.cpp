#include "solver/residuals.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mrp::solver {

double biorthogonality_residual(const Tall& a, const Tall& b) {
  const auto finite = [](double x) { return std::isfinite(x); };
  if (!std::all_of(a.values.begin(), a.values.end(), finite) ||
      !std::all_of(b.values.begin(), b.values.end(), finite)) {
    return std::numeric_limits<double>::infinity();
  }
  const Tall m = cross(b, a);
  double worst = 0;
  for (std::int64_t j = 0; j < m.columns; ++j) {
    for (std::int64_t i = 0; i < m.rows; ++i) {
      worst = std::max(worst, std::abs(m(i, j) - (i == j ? 1.0 : 0.0)));
    }
  }
  return worst;
}

}  // namespace mrp::solver
