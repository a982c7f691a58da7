#include "solver/lapack_eigensolver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "dist/checked_cast.hpp"
#include "solver/blas.hpp"
#include "solver/block_cyclic.hpp"
#include "solver/dense.hpp"
#include "solver/residuals.hpp"
#include "solver/scalapack.hpp"

namespace mrp::solver {
namespace {

constexpr int one = 1;

// What a backend returns: ascending, as the libraries do.
struct Ascending {
  std::vector<double> values;
  std::optional<DistMatrix> vectors;
};

// Some ScaLAPACK queries ask for too little, so callers pass the documented minimum as well; a
// margin on top costs nothing. Lengths are 32 bits in the library.
int workspace(double queried, std::int64_t documented, const DistMatrix& a, const char* routine) {
  const double length = 1.1 * std::max(queried, static_cast<double>(documented)) + 1024;
  if (length > std::numeric_limits<int>::max()) {
    throw dist::ResourceError(fmt::format(
        "{} for n = {} on a {} x {} grid needs a workspace of {:.0f} elements, more than "
        "32 bits can count: use more ranks",
        routine, a.rows(), a.grid().p(), a.grid().q(), length));
  }
  return static_cast<int>(length);
}

template <class T>
std::vector<T> buffer(int length) {
  return std::vector<T>(static_cast<std::size_t>(length));
}

Ascending lapack_dsyevr(DistMatrix& a, std::int64_t k, bool vectors, std::string_view name) {
  const int n = a.descriptor().rows;
  const int il = n - static_cast<int>(k) + 1;
  const char* job = vectors ? "V" : "N";
  const double unused = 0, abstol = 0;
  Ascending result{std::vector<double>(static_cast<std::size_t>(n)),
                   DistMatrix(a.grid(), a.rows(), vectors ? k : 1, a.block())};
  std::vector<int> support(static_cast<std::size_t>(2 * n));
  int found = 0, info = 0;
  auto call = [&](double* work, int lwork, int* iwork, int liwork) {
    dsyevr_(job, "I", "L", &n, a.data(), &n, &unused, &unused, &il, &n, &abstol, &found,
            result.values.data(), result.vectors->data(), &n, support.data(), work, &lwork, iwork,
            &liwork, &info, 1, 1, 1);
  };
  double query = 0;
  int integer_query = 0;
  call(&query, -1, &integer_query, -1);
  auto work = buffer<double>(workspace(query, 26LL * n, a, "dsyevr"));
  auto iwork = buffer<int>(workspace(integer_query, 10LL * n, a, "dsyevr"));
  call(work.data(), static_cast<int>(work.size()), iwork.data(), static_cast<int>(iwork.size()));
  check_info(a.grid().comm(), info, "eigensolver (dsyevr)", name);
  if (found != k)
    throw dist::NumericalError(
        fmt::format("dsyevr found {} of {} eigenvalues of the {}", found, k, name));
  result.values.resize(static_cast<std::size_t>(k));
  return result;
}

// pdsyevr transforms its vectors back with pdormtr in a part of its workspace whose size it derives
// from n and the number of pairs only, however much it is given; where that is too small, pdormtr
// prints a line, the vectors stay those of the tridiagonal matrix and info is 0. Asking for more
// pairs enlarges the part. Returns the smallest number of pairs ≥ k for which it suffices; more
// than n if none does.
std::int64_t pairs_for_pdsyevr(const DistMatrix& a, std::int64_t k) {
  const std::int64_t n = a.rows(), nb = a.block();
  const std::int64_t np = local_count(n, nb, 0, a.grid().p());
  auto suffices = [&](std::int64_t pairs) {
    const std::int64_t mq = local_count(pairs, nb, 0, a.grid().q());
    return std::max(18 * n, np * mq + 2 * nb * nb) >= (np + mq) * nb + nb * nb;
  };
  while (k <= n && !suffices(k)) ++k;
  return k;
}

// The last `pairs` pairs; empty when the routine failed, which its caller mends with pdsyevd.
std::optional<Ascending> scalapack_pdsyevr(DistMatrix& a, std::int64_t pairs, bool vectors) {
  const BlacsGrid& grid = a.grid();
  const int n = a.descriptor().rows;
  const int il = n - static_cast<int>(pairs) + 1;
  const char* job = vectors ? "V" : "N";
  const double unused = 0;
  // The routine insists on an n × n descriptor although it fills `pairs` columns only.
  Ascending result{std::vector<double>(static_cast<std::size_t>(n)),
                   DistMatrix(grid, a.rows(), a.rows(), a.block())};
  int found = 0, found_vectors = 0, info = 0;
  auto call = [&](double* work, int lwork, int* iwork, int liwork) {
    pdsyevr_(job, "I", "L", &n, a.data(), &one, &one, a.descriptor().data(), &unused, &unused, &il,
             &n, &found, &found_vectors, result.values.data(), result.vectors->data(), &one, &one,
             result.vectors->descriptor().data(), work, &lwork, iwork, &liwork, &info, 1, 1, 1);
  };
  // Minimum of the routine's documentation, in its own names.
  const std::int64_t nb = a.block(), nn = std::max<std::int64_t>({n, nb, 2});
  const std::int64_t np0 = local_count(nn, nb, 0, grid.p()), mq0 = local_count(nn, nb, 0, grid.q());
  const std::int64_t processes = grid.p() * static_cast<std::int64_t>(grid.q());
  const std::int64_t share = (pairs + processes - 1) / processes;
  const std::int64_t real_minimum =
      vectors ? 2 + 5LL * n + std::max(18 * nn, np0 * mq0 + 2 * nb * nb) + (2 + share) * nn
              : 2 + 5LL * n + std::max(12 * nn, nb * (np0 + 1));
  const std::int64_t nnp = std::max<std::int64_t>({n, processes + 1, 4});
  double query = 0;
  int integer_query = 0;
  call(&query, -1, &integer_query, -1);
  auto work = buffer<double>(workspace(query, real_minimum, a, "pdsyevr"));
  auto iwork = buffer<int>(workspace(integer_query, 12 * nnp + 2LL * n, a, "pdsyevr"));
  call(work.data(), static_cast<int>(work.size()), iwork.data(), static_cast<int>(iwork.size()));
  const bool failed = info != 0 || found != pairs || (vectors && found_vectors != pairs);
  if (grid.comm().all_reduce(static_cast<int>(failed), dist::ReduceOp::max) != 0) return {};
  result.values.resize(static_cast<std::size_t>(pairs));
  return result;
}

// All pairs, with vectors: the routine knows no other way.
Ascending scalapack_pdsyevd(DistMatrix& a, std::string_view name) {
  const BlacsGrid& grid = a.grid();
  const int n = a.descriptor().rows;
  Ascending result{std::vector<double>(static_cast<std::size_t>(n)),
                   DistMatrix(grid, a.rows(), a.rows(), a.block())};
  int info = 0;
  auto call = [&](double* work, int lwork, int* iwork, int liwork) {
    pdsyevd_("V", "L", &n, a.data(), &one, &one, a.descriptor().data(), result.values.data(),
             result.vectors->data(), &one, &one, result.vectors->descriptor().data(), work, &lwork,
             iwork, &liwork, &info, 1, 1);
  };
  const std::int64_t nb = a.block();
  const std::int64_t np = local_count(n, nb, 0, grid.p()), nq = local_count(n, nb, 0, grid.q());
  const std::int64_t tridiagonal = 3 * std::int64_t{n} + std::max(nb * (np + 1), 3 * nb);
  // Documented, plus what its inner pdormtr and pdlasrt need on grids with few columns.
  const std::int64_t minimum = std::max(1 + 6 * std::int64_t{n} + 2 * np * nq, tridiagonal) +
                               2LL * n + nb * (np + nq + 2 * nb);
  double query = 0;
  int integer_query = 0;
  call(&query, -1, &integer_query, -1);
  auto work = buffer<double>(workspace(query, minimum, a, "pdsyevd"));
  auto iwork = buffer<int>(workspace(integer_query, 7LL * n + 8LL * grid.q() + 2, a, "pdsyevd"));
  call(work.data(), static_cast<int>(work.size()), iwork.data(), static_cast<int>(iwork.size()));
  check_info(grid.comm(), info, "eigensolver (pdsyevd)", name);
  // A matrix of a single block is solved by its owner alone, and the others are not told the
  // values.
  grid.comm().broadcast(std::span<double>(result.values));
  return result;
}

bool on_one_rank(const DistMatrix& a) {
  return a.grid().comm().size() == 1;
}

// The k last pairs of an ascending list, turned round.
EigenPairs descending(const Ascending& result, std::int64_t k) {
  const auto count = static_cast<std::int64_t>(result.values.size());
  std::vector<std::int64_t> columns = index_range(count - k, k);
  std::ranges::reverse(columns);
  return {{result.values.rbegin(), result.values.rbegin() + k},
          select_columns(*result.vectors, columns)};
}

std::vector<double> descending(const std::vector<double>& ascending, std::int64_t k) {
  return {ascending.rbegin(), ascending.rbegin() + k};
}

}  // namespace

EigenPairs lapack_eigenpairs(DistMatrix a, std::int64_t k, std::string_view name) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  if (on_one_rank(a)) return descending(lapack_dsyevr(a, k, true, name), k);

  constexpr double tolerance = 1e-10;  // info = 0 is no proof, see pairs_for_pdsyevr
  mirror_lower(a);
  const DistMatrix original = a;  // the routines destroy their argument, also when they fail
  if (const std::int64_t pairs = pairs_for_pdsyevr(a, k); 2 * pairs < a.rows()) {
    if (const auto result = scalapack_pdsyevr(a, pairs, true)) {
      EigenPairs top = descending(*result, k);
      if (eigen_residual(original, top.values, top.vectors) < tolerance) return top;
    }
    a = original;
  }
  EigenPairs pairs = descending(scalapack_pdsyevd(a, name), k);
  const double residual = eigen_residual(original, pairs.values, pairs.vectors);
  if (!(residual < tolerance)) {
    throw dist::NumericalError(
        fmt::format("pdsyevd: eigenvectors of the {} have residual {:.1e}", name, residual));
  }
  return pairs;
}

std::vector<double> lapack_eigenvalues(DistMatrix a, std::int64_t k, std::string_view name) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  if (on_one_rank(a)) return descending(lapack_dsyevr(a, k, false, name).values, k);
  const DistMatrix original = a;
  if (const auto result = scalapack_pdsyevr(a, k, false)) return descending(result->values, k);
  a = original;
  return descending(scalapack_pdsyevd(a, name).values, k);
}

}  // namespace mrp::solver
