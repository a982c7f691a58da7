// Few of many eigenpairs: when the Krylov method is tried, and whether its result is accepted.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "solver/krylov.hpp"

namespace mrp::solver {

/// Whether k of n pairs are so few that the Krylov method is tried.
bool are_few(std::int64_t n, std::int64_t k);

/// Collective over `comm`. krylov_pairs where k is small against n, its result checked by a product
/// of its own: ‖A v − λ v‖ ≤ 1e-9 ‖A‖ for each pair and |Vᵀ V − I| ≤ 1e-10. Empty if
/// tridiagonalisation is the better way, or, with a line in the log that calls the matrix `name`,
/// if the method failed.
std::optional<KrylovPairs> few_eigenpairs(const dist::Communicator& comm,
                                          const SymmetricOperator& a, std::int64_t n,
                                          std::int64_t k, std::string_view name);

}  // namespace mrp::solver
