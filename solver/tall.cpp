#include "solver/tall.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dist/checked_cast.hpp"
#include "solver/blas.hpp"

namespace mrp::solver {
namespace {

int size32(std::int64_t value) {
  return dist::checked_cast<int>(value, "matrix size");
}
int ld32(std::int64_t value) {
  return size32(std::max<std::int64_t>(1, value));
}

}  // namespace

void gemm(Op op_a, Op op_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
          const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
          double* c, std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  const char ta = static_cast<char>(op_a), tb = static_cast<char>(op_b);
  const int m32 = size32(m), n32 = size32(n), k32 = size32(k);
  const int lda32 = ld32(lda), ldb32 = ld32(ldb), ldc32 = ld32(ldc);
  dgemm_(&ta, &tb, &m32, &n32, &k32, &alpha, a, &lda32, b, &ldb32, &beta, c, &ldc32, 1, 1);
}

Tall from_row_major(const std::vector<double>& values, std::int64_t rows, std::int64_t columns) {
  MRP_EXPECT(std::cmp_equal(values.size(), rows * columns));
  Tall result(rows, columns);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      result(i, j) = values[static_cast<std::size_t>(i * columns + j)];
    }
  }
  return result;
}

Tall multiply(const Tall& a, const Tall& b) {
  MRP_EXPECT(a.columns == b.rows);
  Tall c(a.rows, b.columns);
  gemm(Op::none, Op::none, c.rows, c.columns, a.columns, 1, a.values.data(), a.rows,
       b.values.data(), b.rows, 0, c.values.data(), c.rows);
  return c;
}

Tall cross(const Tall& a, const Tall& b) {
  MRP_EXPECT(a.rows == b.rows);
  Tall c(a.columns, b.columns);
  gemm(Op::transposed, Op::none, c.rows, c.columns, a.rows, 1, a.values.data(), a.rows,
       b.values.data(), b.rows, 0, c.values.data(), c.rows);
  return c;
}

Tall orthonormal(Tall a) {
  MRP_EXPECT(a.rows >= a.columns);
  if (a.columns == 0) return a;
  const int m = size32(a.rows), k = size32(a.columns);
  std::vector<double> tau(static_cast<std::size_t>(k));
  std::vector<double> work(static_cast<std::size_t>(k) * 64);
  const int lwork = size32(static_cast<std::int64_t>(work.size()));
  int info = 0;
  dgeqrf_(&m, &k, a.values.data(), &m, tau.data(), work.data(), &lwork, &info);
  MRP_EXPECT(info == 0);
  dorgqr_(&m, &k, &k, a.values.data(), &m, tau.data(), work.data(), &lwork, &info);
  MRP_EXPECT(info == 0);
  return a;
}

std::vector<double> diagonalise(Tall& a) {
  MRP_EXPECT(a.rows == a.columns);
  const int n = size32(a.rows);
  if (n == 0) return {};
  std::vector<double> values(static_cast<std::size_t>(n));
  double length = 0;
  int integer_length = 0, info = 0;
  auto call = [&](double* work, int lwork, int* iwork, int liwork) {
    dsyevd_("V", "L", &n, a.values.data(), &n, values.data(), work, &lwork, iwork, &liwork, &info,
            1, 1);
  };
  call(&length, -1, &integer_length, -1);
  std::vector<double> work(static_cast<std::size_t>(length));
  std::vector<int> iwork(static_cast<std::size_t>(integer_length));
  call(work.data(), static_cast<int>(length), iwork.data(), integer_length);
  if (info != 0) throw dist::NumericalError(fmt::format("dsyevd failed (info = {})", info));
  std::reverse(values.begin(), values.end());
  for (std::int64_t j = 0; j < a.columns / 2; ++j) {
    const auto column = a.values.begin() + j * a.rows;
    std::swap_ranges(column, column + a.rows, a.values.end() - (j + 1) * a.rows);
  }
  return values;
}

Tall divide(const Tall& a, const Tall& m, const char* name) {
  MRP_EXPECT(m.rows == m.columns && a.columns == m.rows);
  if (a.columns == 0) return a;
  // x m = a  <=>  mᵀ xᵀ = aᵀ
  Tall system(m.rows, m.rows), right(a.columns, a.rows);
  for (std::int64_t i = 0; i < m.rows; ++i) {
    for (std::int64_t j = 0; j < m.rows; ++j) system(j, i) = m(i, j);
  }
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.columns; ++j) right(j, i) = a(i, j);
  }
  const int n = size32(m.rows), count = size32(a.rows);
  std::vector<int> pivots(static_cast<std::size_t>(n));
  int info = 0;
  dgesv_(&n, &count, system.values.data(), &n, pivots.data(), right.values.data(), &n, &info);
  if (info != 0) {
    throw dist::NumericalError(fmt::format("{} is singular at order {} (dgesv)", name, info));
  }
  Tall result(a.rows, a.columns);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.columns; ++j) result(i, j) = right(j, i);
  }
  return result;
}

Tall leading_columns(const Tall& a, std::int64_t count) {
  MRP_EXPECT(count <= a.columns);
  Tall result(a.rows, count);
  std::copy_n(a.values.begin(), result.values.size(), result.values.begin());
  return result;
}

double trace_of_product(const Tall& a, const Tall& b) {
  MRP_EXPECT(a.columns == b.rows && a.rows == b.columns);
  double sum = 0;
  for (std::int64_t j = 0; j < a.columns; ++j) {
    for (std::int64_t i = 0; i < a.rows; ++i) sum += a(i, j) * b(j, i);
  }
  return sum;
}

}  // namespace mrp::solver
