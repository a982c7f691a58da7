#include "peers.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/scalapack.hpp"
#ifdef MRP_WITH_ELPA
#include <elpa/elpa.h>
#endif

namespace mrp::bench {
namespace {

using namespace solver;

constexpr int one = 1;

std::vector<std::int64_t> indices(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(count));
  std::iota(result.begin(), result.end(), first);
  return result;
}

EigenPairs choose(const std::vector<double>& values, const DistMatrix& vectors,
                  const std::vector<std::int64_t>& columns) {
  EigenPairs pairs{{}, select(vectors, indices(0, vectors.rows()), columns)};
  for (const std::int64_t column : columns)
    pairs.values.push_back(values[static_cast<std::size_t>(column)]);
  return pairs;
}

// Calls the routine for the sizes of its workspace, then with a tenth more than it asked for.
template <class Routine>
void with_workspace(const Routine& routine) {
  double query = 0;
  int integer_query = 0;
  routine(&query, -1, &integer_query, -1);
  std::vector<double> work(static_cast<std::size_t>(1.1 * query) + 1024);
  std::vector<int> iwork(static_cast<std::size_t>(1.1 * integer_query) + 1024);
  routine(work.data(), static_cast<int>(work.size()), iwork.data(), static_cast<int>(iwork.size()));
}

}  // namespace

EigenPairs pdsyevd(DistMatrix& a, std::int64_t k) {
  const int n = a.descriptor().rows;
  std::vector<double> values(static_cast<std::size_t>(n));
  DistMatrix vectors(a.grid(), n, n, a.block());
  int info = 0;
  with_workspace([&](double* work, int lwork, int* iwork, int liwork) {
    pdsyevd_("V", "L", &n, a.data(), &one, &one, a.descriptor().data(), values.data(),
             vectors.data(), &one, &one, vectors.descriptor().data(), work, &lwork, iwork, &liwork,
             &info, 1, 1);
  });
  check_info(a.grid().comm(), info, "pdsyevd", "benchmark's matrix");
  auto columns = indices(n - k, k);
  std::reverse(columns.begin(), columns.end());
  return choose(values, vectors, columns);
}

#ifdef MRP_WITH_ELPA
// ELPA's eigenvalues ascend, so the largest of C are the first of −C.
EigenPairs elpa(DistMatrix& a, std::int64_t k) {
  const BlacsGrid& grid = a.grid();
  const int n = a.descriptor().rows;
  int error = elpa_init(20211125);
  elpa_t solver = elpa_allocate(&error);
  const std::pair<const char*, int> settings[] = {
      {"na", n},
      {"nev", static_cast<int>(k)},
      {"local_nrows", static_cast<int>(a.local_rows())},
      {"local_ncols", static_cast<int>(a.local_columns())},
      {"nblk", static_cast<int>(a.block())},
      {"mpi_comm_parent", MPI_Comm_c2f(grid.comm().get())},
      {"process_row", grid.row()},
      {"process_col", grid.column()}};
  for (const auto& [name, value] : settings) elpa_set_integer(solver, name, value, &error);
  MRP_EXPECT(elpa_setup(solver) == ELPA_OK);
  elpa_set_integer(solver, "solver", ELPA_SOLVER_2STAGE, &error);
  elpa_set_integer(solver, "real_kernel",
                   __builtin_cpu_supports("avx512f") ? ELPA_2STAGE_REAL_AVX512_BLOCK4
                                                     : ELPA_2STAGE_REAL_AVX2_BLOCK4,
                   &error);
  scale(a, -1);
  std::vector<double> values(static_cast<std::size_t>(n));
  DistMatrix vectors(grid, n, n, a.block());
  elpa_eigenvectors_double(solver, a.data(), values.data(), vectors.data(), &error);
  check_info(grid.comm(), error, "ELPA", "benchmark's matrix");
  elpa_deallocate(solver, &error);
  for (double& value : values) value = -value;
  return choose(values, vectors, indices(0, k));
}
#endif

}  // namespace mrp::bench
