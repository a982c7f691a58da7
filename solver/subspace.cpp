#include "solver/subspace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "dist/error.hpp"
#include "solver/null_edge.hpp"
#include "solver/projector.hpp"
#include "solver/random.hpp"
#include "solver/space.hpp"

namespace mrp::solver {
namespace {

void check(const SubspaceOptions& options) {
  if (!(options.ridge > 0)) {
    throw dist::UsageError(fmt::format("ridge is {}, it must be above 0", options.ridge));
  }
  if (!(options.alpha >= 0)) {
    throw dist::UsageError(fmt::format("alpha is {}, it must not be negative", options.alpha));
  }
  if (!(options.retain_energy >= 0 && options.retain_energy <= 1)) {
    throw dist::UsageError(
        fmt::format("retain_energy is {}, it must lie in 0..1", options.retain_energy));
  }
  if (options.dimension.value_or(0) < 0 || options.max_dimension < 0) {
    throw dist::UsageError("a dimension must not be negative");
  }
}

void check(const Space& space) {
  if (!(space.forget_trace() > 0)) throw dist::InputError("all forget states are zero");
  if (!(space.retain_trace() > 0)) throw dist::InputError("all retain states are zero");
}

// k directions of the rule. @throws InputError if the states do not have so many.
Directions find_directions(Space& space, const Pool& pool, const SubspaceOptions& options,
                           std::int64_t k) {
  const std::int64_t most =
      options.rule == Rule::random ? pool.width() : std::min(pool.width(), pool.forget_rows());
  std::int64_t found = most;
  if (k <= most) {
    Directions result;
    if (options.rule == Rule::random) {
      result.kernel = orthonormal(random_normal(pool.width(), k, options.seed));
      return result;
    }
    result = options.rule == Rule::gevp ? space.gevp(k) : space.leading(options, k);
    found = std::count_if(result.values.begin(), result.values.end(),
                          [&](double value) { return value > result.noise; });
    if (found == k) return result;
  }
  throw dist::InputError(fmt::format(
      "dimension {} asked for, but {} forget states of width {} have only {} directions "
      "for this rule: lower the dimension or give more states",
      k, pool.forget_rows(), pool.width(), found));
}

// The leading k of directions whose number was chosen after they were computed.
Directions truncate(const Directions& directions, std::int64_t k) {
  Directions result;
  result.values = directions.values;
  result.kernel = leading_columns(directions.kernel, k);
  result.filters = leading_columns(directions.filters, k);
  return result;
}

struct Choice {
  double null_edge = 0;
  Directions directions;  // its kernel has k columns
};

Choice choose_directions(Space& space, const Pool& pool, const SubspaceOptions& options) {
  Choice choice;
  if (options.dimension) {
    if (*options.dimension > 0) {
      choice.directions = find_directions(space, pool, options, *options.dimension);
    }
    return choice;
  }
  const std::int64_t most = std::min({options.max_dimension, pool.width(), pool.forget_rows()});
  if (most == 0) return choice;
  choice.null_edge = measure_null_edge(space, pool);
  const Directions pencil = space.gevp(most);
  const std::int64_t k =
      std::count_if(pencil.values.begin(), pencil.values.end(),
                    [&](double value) { return value > std::max(choice.null_edge, pencil.noise); });
  if (options.rule == Rule::gevp || k == 0) {
    choice.directions = truncate(pencil, k);
  } else {
    choice.directions = find_directions(space, pool, options, k);
  }
  return choice;
}

// With a kernel that spans the columns of `earlier` as well; what the directions have in common
// with these counts once.
Directions nest(const Tall& earlier, Directions directions) {
  constexpr double least = 1e-6;  // of the square of a unit vector that is new
  MRP_EXPECT(directions.kernel.columns == 0 || directions.kernel.rows == earlier.rows);
  Tall all = orthonormal(earlier);
  Tall fresh = orthonormal(std::move(directions.kernel));
  for (int pass = 0; pass < 2 && fresh.columns > 0; ++pass) {
    const Tall common = multiply(all, cross(all, fresh));
    for (std::size_t i = 0; i < fresh.values.size(); ++i) fresh.values[i] -= common.values[i];
  }
  Tall vectors = cross(fresh, fresh);
  const auto squares = diagonalise(vectors);
  const auto count =
      std::count_if(squares.begin(), squares.end(), [](double square) { return square > least; });
  fresh = orthonormal(multiply(fresh, leading_columns(vectors, count)));
  all.values.insert(all.values.end(), fresh.values.begin(), fresh.values.end());
  all.columns += count;
  Directions result;
  result.values = std::move(directions.values);
  result.kernel = std::move(all);
  return result;
}

std::vector<double> row_major(const Tall& a) {
  std::vector<double> values;
  values.reserve(a.values.size());
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.columns; ++j) values.push_back(a(i, j));
  }
  return values;
}

// All ranks computed the same; the root's word makes it the same to the last bit, also where ranks
// run on different processors.
void make_identical(const dist::Communicator& comm, Subspace& subspace) {
  comm.broadcast(std::span<double>(subspace.a));
  comm.broadcast(std::span<double>(subspace.b));
  comm.broadcast(std::span<double>(subspace.eigenvalues));
  std::array<double, 3> numbers{subspace.null_edge, subspace.retain_distortion,
                                subspace.forget_removed};
  comm.broadcast(std::span<double>(numbers));
  subspace.null_edge = numbers[0];
  subspace.retain_distortion = numbers[1];
  subspace.forget_removed = numbers[2];
}

}  // namespace

Route choose_route(std::int64_t width, std::int64_t forget_rows, std::int64_t retain_rows) {
  return forget_rows + retain_rows < width ? Route::sample_space : Route::feature_space;
}

Subspace find_subspace(const BlacsGrid& grid, const StateSource& forget, const StateSource& retain,
                       const SubspaceOptions& options, const Tall& earlier) {
  check(options);
  const Pool pool(forget, retain);
  Subspace subspace;
  subspace.width = pool.width();
  subspace.route = options.route != Route::automatic
                       ? options.route
                       : choose_route(pool.width(), pool.forget_rows(), pool.retain_rows());
  const auto space = subspace.route == Route::feature_space
                         ? make_feature_space(grid, pool, options.ridge)
                         : make_sample_space(grid, pool, options.ridge);
  check(*space);

  Choice choice = choose_directions(*space, pool, options);
  if (earlier.columns > 0) choice.directions = nest(earlier, std::move(choice.directions));
  subspace.k = choice.directions.kernel.columns;
  subspace.null_edge = choice.null_edge;
  subspace.eigenvalues = choice.directions.values;
  if (subspace.k > 0) {
    const Projector projector = make_projector(*space, choice.directions, options.projector);
    subspace.a = row_major(projector.a);
    subspace.b = row_major(projector.b);
    subspace.retain_distortion = retain_distortion(*space, projector);
    subspace.forget_removed = forget_removed(*space, projector);
  }
  make_identical(grid.comm(), subspace);
  return subspace;
}

}  // namespace mrp::solver
