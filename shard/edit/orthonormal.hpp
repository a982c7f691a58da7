// Orthonormal bases of tall matrices by repeated Cholesky QR.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mrp::shard {

/// Replaces V, row-major [rows × k], by Q with Qᵀ Q = I and V = Q R; returns R, upper triangular
/// row-major [k × k]. @throws NumericalError naming `what` if the columns are linearly dependent.
std::vector<double> orthonormalise(std::vector<double>& v, std::int64_t k, const std::string& what);

}  // namespace mrp::shard
