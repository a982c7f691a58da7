#include "solver/rules.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/eigensolver.hpp"

namespace mrp::solver {
namespace {

// Leading eigenvectors of C_r that hold `share` of its trace.
DistMatrix retained_space(const DistMatrix& retain, double share) {
  const EigenPairs pairs = top_eigenpairs(retain, retain.rows(), "retain covariance");
  const double wanted = share * std::accumulate(pairs.values.begin(), pairs.values.end(), 0.0);
  double held = 0;
  std::int64_t r = 0;
  while (r < retain.rows() && held < wanted) held += pairs.values[static_cast<std::size_t>(r++)];
  return select_columns(pairs.vectors, index_range(0, r));
}

// R C_f R with R = I − U Uᵀ, as C_f − U Wᵀ − W Uᵀ with W = C_f U − ½ U (Uᵀ C_f U).
DistMatrix outside(const DistMatrix& forget, const DistMatrix& u) {
  DistMatrix result = forget;
  if (u.columns() == 0) return result;
  DistMatrix w(forget.grid(), forget.rows(), u.columns(), forget.block());
  DistMatrix inner(forget.grid(), u.columns(), u.columns(), forget.block());
  multiply(Op::none, Op::none, 1, forget, u, 0, w);
  multiply(Op::transposed, Op::none, 1, u, w, 0, inner);
  multiply(Op::none, Op::none, -0.5, u, inner, 1, w);
  multiply(Op::none, Op::transposed, -1, u, w, 1, result);
  multiply(Op::none, Op::transposed, -1, w, u, 1, result);
  return result;
}

}  // namespace

Directions leading_directions(const DistMatrix& forget, const DistMatrix& retain,
                              const SubspaceOptions& options, std::int64_t k) {
  DistMatrix objective = forget;
  double size = trace(forget);  // what the objective's entries are rounded against
  switch (options.rule) {
    case Rule::forget_pca:
      break;
    case Rule::cpca:
      add(objective, -options.alpha, retain);
      size += options.alpha * trace(retain);
      break;
    case Rule::retain_complement:
      objective = outside(forget, retained_space(retain, options.retain_energy));
      break;
    case Rule::forget_complement:
      objective = outside(retain, retained_space(forget, options.retain_energy));
      size = trace(retain);
      break;
    case Rule::gevp:
    case Rule::random:
      MRP_EXPECT(false, "not a rule of leading eigenvectors");
  }
  const std::int64_t n = forget.rows();
  EigenPairs pairs =
      top_eigenpairs(std::move(objective), std::min(k, n), "contrast of the covariances");
  Directions result;
  result.kernel = gather(pairs.vectors);
  result.values = std::move(pairs.values);
  result.noise = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * size;
  return result;
}

}  // namespace mrp::solver
