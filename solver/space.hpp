// The two equal routes from states to directions behind one interface.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "solver/pool.hpp"
#include "solver/rules.hpp"

namespace mrp::solver {

/// What the rules and projectors ask of the second moments C_f = X_fᵀX_f/N_f, C_r = X_rᵀX_r/N_r and
/// ε = ridge · tr(C_r)/width. Borrows grid and pool. Every member but the traces is collective over
/// the grid.
class Space {
 public:
  virtual ~Space() = default;

  /// tr C: the mean squared norm of a state.
  double forget_trace() const noexcept { return forget_trace_; }
  double retain_trace() const noexcept { return retain_trace_; }

  /// Top k of C_f v = λ (C_r + εI) v; filters V, kernel A = (C_r + εI) V. @pre k ≤ min(width, N_f)
  virtual Directions gevp(std::int64_t k) = 0;
  /// The other rules that look at the states; fewer than k directions if the states span fewer.
  virtual Directions leading(const SubspaceOptions& options, std::int64_t k) = 0;
  /// The k largest λ of the same pencil between the rows that the mask marks (for C_f) and the
  /// others (for C_r).
  virtual std::vector<double> division_values(const RowMask& mask, std::int64_t k) = 0;
  /// (C_r + εI)⁻¹ q
  virtual Tall solve_retain(const Tall& q) = 0;
  /// bᵀ C b [k × k]
  virtual Tall forget_form(const Tall& b) = 0;
  virtual Tall retain_form(const Tall& b) = 0;

 protected:
  double forget_trace_ = 0, retain_trace_ = 0;
};

/// Collective over the grid. Reads the states; width × width covariances.
/// @throws NumericalError: non-finite states.
std::unique_ptr<Space> make_feature_space(const BlacsGrid& grid, const Pool& pool, double ridge);

/// Collective over the grid. Reads the states; one Gram matrix of all rows, no width × width matrix
/// ever.
std::unique_ptr<Space> make_sample_space(const BlacsGrid& grid, const Pool& pool, double ridge);

}  // namespace mrp::solver
