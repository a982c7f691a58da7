#include "problem.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/random.hpp"

namespace mrp::bench {
namespace {

using namespace solver;
using Values = std::vector<double>;

Values power_law(std::int64_t n) {
  Values values;
  for (std::int64_t i = 1; i <= n; ++i) values.push_back(1 / static_cast<double>(i));
  return values;
}

Values eigenvalues(const std::string& spectrum, std::int64_t n, std::int64_t k) {
  Values values = power_law(n);
  if (spectrum == "planted") {
    for (int i = 0; i < 16; ++i)
      values[values.size() - 1 - static_cast<std::size_t>(i)] = 0.5 + 0.1 * i;
  } else if (spectrum == "cluster") {
    const auto first = static_cast<std::size_t>(std::max<std::int64_t>(k - 6, 0));
    for (std::size_t i = 0; i < 12; ++i)
      values[first + i] = values[first] * (1 - 1e-8 * static_cast<double>(i));
  } else if (spectrum != "power") {
    throw dist::InputError("no spectrum is called " + spectrum);
  }
  return values;
}

DistMatrix diagonal_matrix(const BlacsGrid& grid, const Values& values) {
  const auto n = static_cast<std::int64_t>(values.size());
  DistMatrix a(grid, n, n, choose_block(grid, n));
  const auto rows = a.row_indices(), columns = a.column_indices();
  for (std::int64_t j = 0; j < a.local_columns(); ++j) {
    for (std::int64_t i = 0; i < a.local_rows(); ++i) {
      const auto row = rows[static_cast<std::size_t>(i)];
      if (row == columns[static_cast<std::size_t>(j)])
        a.at(i, j) = values[static_cast<std::size_t>(row)];
    }
  }
  return a;
}

// H a H with H = I − 2 u uᵀ.
void reflect(DistMatrix& a, const Tall& u) {
  Tall z = product(a, u);
  const double inside = cross(u, z)(0, 0);
  for (std::int64_t i = 0; i < z.rows; ++i) z(i, 0) = 2 * (z(i, 0) - inside * u(i, 0));
  const auto rows = a.row_indices(), columns = a.column_indices();
  for (std::int64_t j = 0; j < a.local_columns(); ++j) {
    const std::int64_t column = columns[static_cast<std::size_t>(j)];
    for (std::int64_t i = 0; i < a.local_rows(); ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      a.at(i, j) -= u(row, 0) * z(column, 0) + z(row, 0) * u(column, 0);
    }
  }
}

// a(i, j) *= factors[i] factors[j]
void scale_symmetrically(DistMatrix& a, const Values& factors) {
  const auto rows = a.row_indices(), columns = a.column_indices();
  for (std::int64_t j = 0; j < a.local_columns(); ++j) {
    for (std::int64_t i = 0; i < a.local_rows(); ++i) {
      a.at(i, j) *= factors[static_cast<std::size_t>(rows[static_cast<std::size_t>(i)])] *
                    factors[static_cast<std::size_t>(columns[static_cast<std::size_t>(j)])];
    }
  }
}

std::vector<Tall> mirrors(std::int64_t n, std::uint64_t seed) {
  std::vector<Tall> result;
  for (std::uint64_t i = 0; i < 3; ++i)
    result.push_back(orthonormal(random_normal(n, 1, seed + i)));
  return result;
}

}  // namespace

Problem make_problem(const BlacsGrid& grid, const std::string& spectrum, std::int64_t n,
                     std::int64_t k, bool pencil) {
  Problem problem{diagonal_matrix(grid, eigenvalues(spectrum, n, k)), {}};
  for (const Tall& u : mirrors(n, 100)) reflect(problem.c, u);
  if (!pencil) return problem;

  // B = H D Hᵀ with H three reflections, and C = B^½ A B^½ of the matrix A so far.
  Values values = power_law(n);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(n);
  for (double& value : values) value += 0.01 * mean;
  problem.b = diagonal_matrix(grid, values);
  auto own = mirrors(n, 200);
  for (const Tall& u : own) reflect(*problem.b, u);
  for (double& value : values) value = std::sqrt(value);
  std::reverse(own.begin(), own.end());
  for (const Tall& u : own) reflect(problem.c, u);
  scale_symmetrically(problem.c, values);
  std::reverse(own.begin(), own.end());
  for (const Tall& u : own) reflect(problem.c, u);
  return problem;
}

}  // namespace mrp::bench
