#include "solver/generalized.hpp"

#include <optional>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/dense_eigensolver.hpp"
#include "solver/few_pairs.hpp"
#include "solver/lower_solver.hpp"

namespace mrp::solver {
namespace {

// Of L⁻¹ A L⁻ᵀ, which is applied, not formed: two solves cost a product, the reduction n/2 of them.
std::optional<KrylovPairs> try_few(const DistMatrix& a, const LowerSolver& lower, std::int64_t k,
                                   std::string_view name) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  const auto reduced = [&](const Tall& x) {
    return lower.solve(Op::none, product(a, lower.solve(Op::transposed, x)));
  };
  return few_eigenpairs(a.grid().comm(), reduced, a.rows(), k, name);
}

}  // namespace

EigenPairs top_pencil_pairs(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                            std::string_view name) {
  const LowerSolver lower(factor);
  if (auto few = try_few(a, lower, k, name)) {
    const Tall vectors = lower.solve(Op::transposed, std::move(few->vectors));
    return {std::move(few->values), scatter(a.grid(), vectors, a.block())};
  }
  reduce_to_standard(a, factor, name);
  EigenPairs pairs = dense_eigenpairs(std::move(a), k, name);
  solve_lower(Op::transposed, factor, pairs.vectors);
  return pairs;
}

std::vector<double> top_pencil_values(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                                      std::string_view name) {
  if (auto few = try_few(a, LowerSolver(factor), k, name)) return few->values;
  reduce_to_standard(a, factor, name);
  return dense_eigenvalues(std::move(a), k, name);
}

}  // namespace mrp::solver
