#include "solver/projector.hpp"

#include <fmt/format.h>

#include <cmath>

#include "dist/error.hpp"
#include "solver/residuals.hpp"

namespace mrp::solver {
namespace {

// Eigenvectors come with either sign; P does not care, readers of files do.
void fix_signs(Projector& projector) {
  for (std::int64_t j = 0; j < projector.a.columns; ++j) {
    double largest = 0;
    for (std::int64_t i = 0; i < projector.a.rows; ++i) {
      if (std::abs(projector.a(i, j)) > std::abs(largest)) largest = projector.a(i, j);
    }
    if (largest >= 0) continue;
    for (std::int64_t i = 0; i < projector.a.rows; ++i) {
      projector.a(i, j) = -projector.a(i, j);
      projector.b(i, j) = -projector.b(i, j);
    }
  }
}

}  // namespace

Projector make_projector(Space& space, const Directions& directions, ProjectorKind kind) {
  Projector result;
  if (kind == ProjectorKind::orthogonal) {
    result.a = orthonormal(directions.kernel);
    result.b = result.a;
  } else {
    result.a = directions.kernel;
    const bool solved = directions.filters.columns > 0;
    const Tall filters = solved ? directions.filters : space.solve_retain(result.a);
    // Filters of the pencil are normalised already: a large deviation means that its eigenvectors
    // are wrong.
    const double residual = solved ? biorthogonality_residual(result.a, filters) : 0;
    if (!(residual < 1e-4)) {
      throw dist::NumericalError(fmt::format(
          "eigenvectors of the pencil miss normalisation by {:.1e}: try a larger ridge", residual));
    }
    result.b = divide(filters, cross(result.a, filters), "the projector's inner matrix");
  }
  const double residual = biorthogonality_residual(result.a, result.b);
  if (!(residual < 1e-8)) {
    throw dist::NumericalError(
        fmt::format("the projector misses Bᵀ A = I by {:.1e}: try a larger ridge or a smaller "
                    "dimension",
                    residual));
  }
  fix_signs(result);
  return result;
}

double retain_distortion(Space& space, const Projector& projector) {
  return trace_of_product(cross(projector.a, projector.a), space.retain_form(projector.b)) /
         space.retain_trace();
}

double forget_removed(Space& space, const Projector& projector) {
  return trace_of_product(cross(projector.a, projector.a), space.forget_form(projector.b)) /
         space.forget_trace();
}

}  // namespace mrp::solver
