#include "solver/dense.hpp"

#include <fmt/format.h>

#include <numeric>
#include <span>
#include <string>

#include "dist/checked_cast.hpp"
#include "solver/blas.hpp"
#include "solver/block_cyclic.hpp"
#include "solver/scalapack.hpp"

namespace mrp::solver {
namespace {

constexpr int one = 1;

bool on_one_rank(const DistMatrix& a) {
  return a.grid().comm().size() == 1;
}

int rows(const DistMatrix& a) {
  return a.descriptor().rows;
}
int columns(const DistMatrix& a) {
  return a.descriptor().columns;
}
int ld(const DistMatrix& a) {
  return a.descriptor().leading_dimension;
}

// What one process holds of a range of indices: neighbours in its local part.
struct Held {
  dist::Range local;
  std::vector<std::int64_t> global;
};

Held held(dist::Range range, std::int64_t block, int process, int processes) {
  Held result{{local_count(range.begin, block, process, processes),
               local_count(range.end, block, process, processes)},
              {}};
  for (std::int64_t i = result.local.begin; i < result.local.end; ++i)
    result.global.push_back(to_global(i, block, process, processes));
  return result;
}

}  // namespace

void check_info(const dist::Communicator& comm, int info, std::string_view routine,
                std::string_view matrix) {
  const int worst = comm.all_reduce(info, dist::ReduceOp::min);
  if (worst < 0) {
    const int argument = -worst;
    // ScaLAPACK packs (argument, entry of its descriptor) into one number.
    const std::string where =
        argument >= 100 ? fmt::format("entry {} of argument {}", argument % 100, argument / 100)
                        : fmt::format("argument {}", argument);
    throw dist::NumericalError(fmt::format("{} refused {} for the {}", routine, where, matrix));
  }
  const int failed = comm.all_reduce(info, dist::ReduceOp::max);
  if (failed > 0) {
    throw dist::NumericalError(fmt::format(
        "{} failed on the {} (info = {}); the states may be extreme: try a larger ridge", routine,
        matrix, failed));
  }
}

void multiply(Op op_a, Op op_b, double alpha, const DistMatrix& a, const DistMatrix& b, double beta,
              DistMatrix& c) {
  const char ta = static_cast<char>(op_a), tb = static_cast<char>(op_b);
  const int m = rows(c), n = columns(c);
  const int k = op_a == Op::none ? columns(a) : rows(a);
  MRP_EXPECT((op_a == Op::none ? rows(a) : columns(a)) == m &&
             (op_b == Op::none ? rows(b) : columns(b)) == k &&
             (op_b == Op::none ? columns(b) : rows(b)) == n);
  if (m == 0 || n == 0) return;
  if (on_one_rank(a)) {
    const int la = ld(a), lb = ld(b), lc = ld(c);
    dgemm_(&ta, &tb, &m, &n, &k, &alpha, a.data(), &la, b.data(), &lb, &beta, c.data(), &lc, 1, 1);
    return;
  }
  pdgemm_(&ta, &tb, &m, &n, &k, &alpha, a.data(), &one, &one, a.descriptor().data(), b.data(), &one,
          &one, b.descriptor().data(), &beta, c.data(), &one, &one, c.descriptor().data(), 1, 1);
}

void mirror_lower(DistMatrix& a) {
  MRP_EXPECT(a.rows() == a.columns());
  const auto row = a.row_indices();
  const auto column = a.column_indices();
  DistMatrix transposed(a.grid(), on_one_rank(a) ? 0 : a.rows(), a.columns(), a.block());
  if (!on_one_rank(a)) {
    const int n = rows(a);
    const double alpha = 1, beta = 0;
    pdtran_(&n, &n, &alpha, a.data(), &one, &one, a.descriptor().data(), &beta, transposed.data(),
            &one, &one, transposed.descriptor().data());
  }
  for (std::int64_t j = 0; j < a.local_columns(); ++j) {
    const std::int64_t global_column = column[static_cast<std::size_t>(j)];
    for (std::int64_t i = 0; i < a.local_rows(); ++i) {
      if (row[static_cast<std::size_t>(i)] >= global_column) break;
      a.at(i, j) = on_one_rank(a) ? a.at(j, i) : transposed.at(i, j);
    }
  }
}

void shift_diagonal(DistMatrix& a, double shift) {
  const auto row = a.row_indices();
  const auto column = a.column_indices();
  std::size_t i = 0;
  for (std::size_t j = 0; j < column.size(); ++j) {
    while (i < row.size() && row[i] < column[j]) ++i;
    if (i < row.size() && row[i] == column[j]) {
      a.at(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)) += shift;
    }
  }
}

void scale(DistMatrix& a, double factor) {
  const std::int64_t count = a.local_rows() * a.local_columns();
  for (std::int64_t i = 0; i < count; ++i) a.data()[i] *= factor;
}

void add(DistMatrix& a, double factor, const DistMatrix& b) {
  MRP_EXPECT(a.rows() == b.rows() && a.columns() == b.columns() && a.block() == b.block());
  const std::int64_t count = a.local_rows() * a.local_columns();
  for (std::int64_t i = 0; i < count; ++i) a.data()[i] += factor * b.data()[i];
}

std::vector<double> diagonal(const DistMatrix& a) {
  MRP_EXPECT(a.rows() == a.columns());
  std::vector<double> values(static_cast<std::size_t>(a.rows()));
  const auto row = a.row_indices();
  const auto column = a.column_indices();
  std::size_t i = 0;
  for (std::size_t j = 0; j < column.size(); ++j) {
    while (i < row.size() && row[i] < column[j]) ++i;
    if (i < row.size() && row[i] == column[j]) {
      values[static_cast<std::size_t>(row[i])] =
          a.at(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j));
    }
  }
  a.grid().comm().all_reduce(std::span<double>(values));
  return values;
}

double trace(const DistMatrix& a) {
  const auto values = diagonal(a);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

void cholesky(DistMatrix& a, std::string_view name) {
  const int n = rows(a);
  int info = 0;
  if (on_one_rank(a)) {
    const int lda = ld(a);
    dpotrf_("L", &n, a.data(), &lda, &info, 1);
  } else {
    pdpotrf_("L", &n, a.data(), &one, &one, a.descriptor().data(), &info, 1);
  }
  check_info(a.grid().comm(), info, "Cholesky factorisation (potrf)", name);
}

void reduce_to_standard(DistMatrix& a, const DistMatrix& l, std::string_view name) {
  const int n = rows(a);
  int info = 0;
  double factor = 1;
  if (on_one_rank(a)) {
    const int lda = ld(a), ldl = ld(l);
    dsygst_(&one, "L", &n, a.data(), &lda, l.data(), &ldl, &info, 1);
  } else {
    pdsygst_(&one, "L", &n, a.data(), &one, &one, a.descriptor().data(), l.data(), &one, &one,
             l.descriptor().data(), &factor, &info, 1);
  }
  check_info(a.grid().comm(), info, "reduction of the pencil (sygst)", name);
  if (factor != 1) scale(a, factor);
}

void solve_lower(Op op, const DistMatrix& l, DistMatrix& b) {
  const char transposed = static_cast<char>(op);
  const int m = rows(b), n = columns(b);
  const double alpha = 1;
  MRP_EXPECT(rows(l) == m);
  if (m == 0 || n == 0) return;
  if (on_one_rank(l)) {
    const int ldl = ld(l), ldb = ld(b);
    dtrsm_("L", "L", &transposed, "N", &m, &n, &alpha, l.data(), &ldl, b.data(), &ldb, 1, 1, 1, 1);
    return;
  }
  pdtrsm_("L", "L", &transposed, "N", &m, &n, &alpha, l.data(), &one, &one, l.descriptor().data(),
          b.data(), &one, &one, b.descriptor().data(), 1, 1, 1, 1);
}

Tall product(const DistMatrix& a, const Tall& v) {
  return product(Op::none, a, {0, a.rows()}, {0, a.columns()}, v);
}

Tall product(Op op, const DistMatrix& a, dist::Range rows, dist::Range columns, const Tall& v) {
  const BlacsGrid& grid = a.grid();
  const Held row = held(rows, a.block(), grid.row(), grid.p());
  const Held column = held(columns, a.block(), grid.column(), grid.q());
  const Held& in = op == Op::none ? column : row;
  const Held& out = op == Op::none ? row : column;
  const std::int64_t first = (op == Op::none ? rows : columns).begin;
  MRP_EXPECT(v.rows == (op == Op::none ? a.columns() : a.rows()));
  // This rank's block times its rows of v; the sum over the grid completes it.
  Tall part(in.local.size(), v.columns), local(out.local.size(), v.columns);
  for (std::int64_t j = 0; j < v.columns; ++j) {
    for (std::int64_t i = 0; i < part.rows; ++i)
      part(i, j) = v(in.global[static_cast<std::size_t>(i)], j);
  }
  gemm(op, Op::none, local.rows, local.columns, part.rows, 1,
       a.data() + column.local.begin * a.local_rows() + row.local.begin, a.local_rows(),
       part.values.data(), part.rows, 0, local.values.data(), local.rows);
  Tall whole((op == Op::none ? rows : columns).size(), v.columns);
  for (std::int64_t j = 0; j < v.columns; ++j) {
    for (std::int64_t i = 0; i < local.rows; ++i)
      whole(out.global[static_cast<std::size_t>(i)] - first, j) = local(i, j);
  }
  grid.comm().all_reduce(std::span<double>(whole.values));
  return whole;
}

}  // namespace mrp::solver
