#include "solver/eigensolver.hpp"

#include <optional>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/dense_eigensolver.hpp"
#include "solver/few_pairs.hpp"

namespace mrp::solver {
namespace {

std::optional<KrylovPairs> try_few(const DistMatrix& a, std::int64_t k, std::string_view name) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  return few_eigenpairs(
      a.grid().comm(), [&](const Tall& x) { return product(a, x); }, a.rows(), k, name);
}

}  // namespace

EigenPairs top_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name) {
  if (auto few = try_few(a, k, name))
    return {std::move(few->values), scatter(a.grid(), few->vectors, a.block())};
  return dense_eigenpairs(std::move(a), k, name);
}

std::vector<double> top_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name) {
  if (auto few = try_few(a, k, name)) return few->values;
  return dense_eigenvalues(std::move(a), k, name);
}

}  // namespace mrp::solver
