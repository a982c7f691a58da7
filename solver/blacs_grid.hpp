// A BLACS process grid that we create ourselves, row-major, over the ranks of a communicator.
#pragma once

#include "dist/communicator.hpp"

namespace mrp::solver {

/// P × Q ranks; rank r sits at (r / Q, r % Q). Must die before the communicator and the Session.
class BlacsGrid {
 public:
  /// Collective over `comm`. P is the largest divisor of the size that is not above its square
  /// root.
  explicit BlacsGrid(const dist::Communicator& comm);
  /// Collective over `comm`. @pre p * q == comm.size().
  BlacsGrid(const dist::Communicator& comm, int p, int q);
  ~BlacsGrid();
  BlacsGrid(const BlacsGrid&) = delete;
  BlacsGrid& operator=(const BlacsGrid&) = delete;

  int context() const noexcept { return context_; }
  int p() const noexcept { return p_; }
  int q() const noexcept { return q_; }
  int row() const noexcept { return row_; }
  int column() const noexcept { return column_; }
  const dist::Communicator& comm() const noexcept { return *comm_; }

 private:
  const dist::Communicator* comm_;
  int handle_ = -1;   // BLACS's name of the communicator
  int context_ = -1;  // BLACS's name of the grid
  int p_ = 1, q_ = 1, row_ = 0, column_ = 0;
};

}  // namespace mrp::solver
