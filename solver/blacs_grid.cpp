#include "solver/blacs_grid.hpp"

#include <fmt/format.h>

#include "dist/error.hpp"
#include "solver/scalapack.hpp"

namespace mrp::solver {
namespace {

int squarest_rows(int size) {
  int rows = 1;
  for (int divisor = 1; divisor * divisor <= size; ++divisor) {
    if (size % divisor == 0) rows = divisor;
  }
  return rows;
}

}  // namespace

BlacsGrid::BlacsGrid(const dist::Communicator& comm)
    : BlacsGrid(comm, squarest_rows(comm.size()), comm.size() / squarest_rows(comm.size())) {}

BlacsGrid::BlacsGrid(const dist::Communicator& comm, int p, int q)
    : comm_(&comm), p_(p), q_(q), row_(comm.rank() / q), column_(comm.rank() % q) {
  MRP_EXPECT(p > 0 && q > 0 && p * q == comm.size(),
             fmt::format("a {} x {} grid over {} ranks", p, q, comm.size()));
  handle_ = Csys2blacs_handle(comm.get());
  context_ = handle_;
  Cblacs_gridinit(&context_, "Row", p, q);
  // BLACS and we must agree on who sits where: everything below is computed from our own
  // coordinates.
  int rows = 0, columns = 0, row = -1, column = -1;
  Cblacs_gridinfo(context_, &rows, &columns, &row, &column);
  MRP_EXPECT(rows == p_ && columns == q_ && row == row_ && column == column_,
             fmt::format("BLACS says ({}, {}) of {} x {}, MPI says ({}, {}) of {} x {}", row,
                         column, rows, columns, row_, column_, p_, q_));
}

BlacsGrid::~BlacsGrid() {
  int finalized = 0;
  if (MPI_Finalized(&finalized) != MPI_SUCCESS || finalized != 0) return;
  Cblacs_gridexit(context_);
  Cfree_blacs_system_handle(handle_);
}

}  // namespace mrp::solver
