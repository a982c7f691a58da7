#include "solver/elpa_eigensolver.hpp"

#ifdef MRP_WITH_ELPA

#include <elpa/elpa.h>

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"

namespace mrp::solver {
namespace {

struct Release {
  void operator()(elpa_t solver) const {
    int error = 0;
    elpa_deallocate(solver, &error);
  }
};
using Solver = std::unique_ptr<std::remove_pointer_t<elpa_t>, Release>;

// Each row and each column of the grid has a part.
bool fits(const DistMatrix& a) {
  return a.rows() > a.block() * (std::max(a.grid().p(), a.grid().q()) - std::int64_t{1});
}

// Whatever the library was built with and the processor can do; it has a default of its own.
void choose_kernel(elpa_t solver) {
#ifdef __x86_64__
  int error = 0;
  elpa_set_integer(solver, "real_kernel",
                   __builtin_cpu_supports("avx512f") ? ELPA_2STAGE_REAL_AVX512_BLOCK4
                                                     : ELPA_2STAGE_REAL_AVX2_BLOCK4,
                   &error);
#endif
}

// Ready for the first k eigenvalues of a matrix of this shape; empty if the library refuses.
Solver make_solver(const DistMatrix& a, std::int64_t k) {
  constexpr int kVersion = 20211125;
  static const bool ready = elpa_init(kVersion) == ELPA_OK;
  int error = ELPA_OK;
  if (!ready) return {};
  Solver solver(elpa_allocate(&error));
  const BlacsGrid& grid = a.grid();
  const std::pair<const char*, int> shape[] = {{"na", a.descriptor().rows},
                                               {"nev", static_cast<int>(k)},
                                               {"local_nrows", static_cast<int>(a.local_rows())},
                                               {"local_ncols", static_cast<int>(a.local_columns())},
                                               {"nblk", static_cast<int>(a.block())},
                                               {"mpi_comm_parent", MPI_Comm_c2f(grid.comm().get())},
                                               {"process_row", grid.row()},
                                               {"process_col", grid.column()}};
  for (const auto& [name, value] : shape) {
    if (error == ELPA_OK) elpa_set_integer(solver.get(), name, value, &error);
  }
  if (error != ELPA_OK || elpa_setup(solver.get()) != ELPA_OK) return {};
  elpa_set_integer(solver.get(), "solver", ELPA_SOLVER_2STAGE, &error);
  choose_kernel(solver.get());
  return solver;
}

std::vector<double> first_negated(const std::vector<double>& values, std::int64_t k) {
  std::vector<double> result(values.begin(), values.begin() + k);
  for (double& value : result) value = -value;
  return result;
}

bool agreed(const BlacsGrid& grid, bool good) {
  return grid.comm().all_reduce(static_cast<int>(good), dist::ReduceOp::min) != 0;
}

}  // namespace

std::optional<EigenPairs> elpa_eigenpairs(DistMatrix a, std::int64_t k) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  if (!fits(a)) return {};
  const Solver solver = make_solver(a, k);
  if (!agreed(a.grid(), solver != nullptr)) return {};
  scale(a, -1);  // eigenvalues ascend: the largest of A are the first of −A
  std::vector<double> values(static_cast<std::size_t>(a.rows()));
  DistMatrix vectors(a.grid(), a.rows(), a.rows(), a.block());
  int error = ELPA_OK;
  elpa_eigenvectors_double(solver.get(), a.data(), values.data(), vectors.data(), &error);
  if (!agreed(a.grid(), error == ELPA_OK)) return {};
  return EigenPairs{first_negated(values, k), select_columns(vectors, index_range(0, k))};
}

std::optional<std::vector<double>> elpa_eigenvalues(DistMatrix a, std::int64_t k) {
  MRP_EXPECT(a.rows() == a.columns() && k > 0 && k <= a.rows());
  if (!fits(a)) return {};
  const Solver solver = make_solver(a, a.rows());
  if (!agreed(a.grid(), solver != nullptr)) return {};
  scale(a, -1);  // eigenvalues ascend: the largest of A are the first of −A
  std::vector<double> values(static_cast<std::size_t>(a.rows()));
  int error = ELPA_OK;
  elpa_eigenvalues_double(solver.get(), a.data(), values.data(), &error);
  if (!agreed(a.grid(), error == ELPA_OK)) return {};
  return first_negated(values, k);
}

}  // namespace mrp::solver

#else

namespace mrp::solver {

std::optional<EigenPairs> elpa_eigenpairs(DistMatrix, std::int64_t) {
  return {};
}

std::optional<std::vector<double>> elpa_eigenvalues(DistMatrix, std::int64_t) {
  return {};
}

}  // namespace mrp::solver

#endif
