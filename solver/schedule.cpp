#include "solver/schedule.hpp"

#include <algorithm>
#include <numeric>

#include "dist/error.hpp"
#include "solver/few_pairs.hpp"
#include "solver/subspace.hpp"

namespace mrp::solver {
namespace {

// n: order of the matrices that are factored; m: length of the products that fill them.
struct Sizes {
  double n = 0, m = 0;
};

Sizes sizes(const Problem& problem) {
  const auto width = static_cast<double>(problem.width), rows = static_cast<double>(problem.rows);
  return choose_route(problem.width, 0, problem.rows) == Route::feature_space ? Sizes{width, rows}
                                                                              : Sizes{rows, width};
}

/// Of k pairs of a pencil of order n: Cholesky factorisation, then products of the Krylov method,
/// or reduction to standard form and tridiagonalisation.
double pencil(double n, std::int64_t k) {
  const double cholesky = n * n * n / 3;
  // Two triangular solves and a product a column; some 8 columns a pair, and for a block more.
  if (are_few(static_cast<std::int64_t>(n), k)) {
    return cholesky + 4 * n * n * 8 * (static_cast<double>(k) + 16);
  }
  return cholesky + (1 + 4.0 / 3) * n * n * n;
}

}  // namespace

double memory(const Problem& problem) {
  // Moments and factors of a solve with an automatic dimension, all n × n in fp64.
  const double n = sizes(problem).n;
  return 7 * n * n * sizeof(double);
}

double work(const Problem& problem) {
  // Of three random divisions the products cost half of those for the moments, and four values each
  // are asked for.
  const auto [n, m] = sizes(problem);
  const double once = n * n * m + pencil(n, problem.pairs);
  return problem.automatic ? once + n * n * m / 2 + 3 * pencil(n, 4) : once;
}

std::vector<int> assign(std::span<const Problem> problems, int ranks, std::uint64_t memory_limit) {
  MRP_EXPECT(ranks > 0);
  std::vector<double> cost;
  for (const Problem& problem : problems) cost.push_back(work(problem));
  const double share = std::accumulate(cost.begin(), cost.end(), 0.0) / ranks;

  std::vector<std::size_t> order(problems.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return cost[i] > cost[j]; });

  std::vector<int> assignment(problems.size(), -1);
  std::vector<double> load(static_cast<std::size_t>(ranks), 0);
  for (const std::size_t i : order) {
    const bool too_long = ranks > 1 && cost[i] > share;
    const bool too_large = ranks > 1 && memory(problems[i]) > static_cast<double>(memory_limit);
    if (too_long || too_large) continue;
    const auto least = std::min_element(load.begin(), load.end());
    *least += cost[i];
    assignment[i] = static_cast<int>(least - load.begin());
  }
  return assignment;
}

void solve_assigned(std::span<const int> assignment, const dist::Communicator& comm,
                    const std::function<void(std::size_t, const BlacsGrid&)>& solve) {
  const auto solve_those_of = [&](int owner, const dist::Communicator& ranks) {
    if (std::count(assignment.begin(), assignment.end(), owner) == 0) return;
    const BlacsGrid grid(ranks);
    for (std::size_t i = 0; i < assignment.size(); ++i) {
      if (assignment[i] == owner) solve(i, grid);
    }
  };
  solve_those_of(comm.rank(), dist::Communicator::self());
  solve_those_of(-1, comm);
}

}  // namespace mrp::solver
