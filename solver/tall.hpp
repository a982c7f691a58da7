// Local algebra: the BLAS product with checked 64-bit sizes, and small operations on matrices that
// every rank holds whole. Nothing here communicates.
#pragma once

#include <cstdint>
#include <vector>

namespace mrp::solver {

enum class Op : char { none = 'N', transposed = 'T' };

/// A column-major matrix [rows × columns], the same on every rank: k directions of a site.
struct Tall {
  Tall() = default;
  Tall(std::int64_t rows_, std::int64_t columns_)
      : rows(rows_), columns(columns_), values(static_cast<std::size_t>(rows_ * columns_)) {}

  double& operator()(std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(j * rows + i)];
  }
  double operator()(std::int64_t i, std::int64_t j) const {
    return values[static_cast<std::size_t>(j * rows + i)];
  }

  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;
};

/// c [m × n] = alpha · op(a) op(b) + beta · c, inner size k, all column-major.
void gemm(Op op_a, Op op_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
          const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
          double* c, std::int64_t ldc);

/// a b and aᵀ b.
Tall multiply(const Tall& a, const Tall& b);
Tall cross(const Tall& a, const Tall& b);

/// Orthonormal basis of the columns (Householder QR). @pre rows ≥ columns.
Tall orthonormal(Tall a);

/// Eigenvalues of a symmetric matrix, descending; `a` becomes their vectors, column by column. Only
/// the lower triangle is read. @throws NumericalError if LAPACK fails.
std::vector<double> diagonalise(Tall& a);

/// a · m⁻¹ for a small square m. @throws NumericalError naming `name` if m is singular.
Tall divide(const Tall& a, const Tall& m, const char* name);

/// Of a row-major array. @pre It has rows · columns elements.
Tall from_row_major(const std::vector<double>& values, std::int64_t rows, std::int64_t columns);

/// The first `count` columns.
Tall leading_columns(const Tall& a, std::int64_t count);

/// tr(a b) of two square matrices.
double trace_of_product(const Tall& a, const Tall& b);

}  // namespace mrp::solver
