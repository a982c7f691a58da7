#include "solver/generalized.hpp"

#include <utility>

#include "solver/dense.hpp"

namespace mrp::solver {

EigenPairs top_pencil_pairs(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                            std::string_view name) {
  reduce_to_standard(a, factor, name);
  EigenPairs pairs = top_eigenpairs(std::move(a), k, name);
  solve_lower(Op::transposed, factor, pairs.vectors);
  return pairs;
}

std::vector<double> top_pencil_values(DistMatrix a, const DistMatrix& factor, std::int64_t k,
                                      std::string_view name) {
  reduce_to_standard(a, factor, name);
  return top_eigenvalues(std::move(a), k, name);
}

}  // namespace mrp::solver
