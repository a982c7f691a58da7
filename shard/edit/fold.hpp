// Folding a projector into a matrix: every side is the same product on row vectors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/subspace_store.hpp"
#include "shard/edit/edit_plan.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

/// w ← w − (w N) Mᵀ for vectors w of length `width`; N, M row-major [width × k], Nᵀ N = I, Mᵀ N =
/// I. The orthonormal N spans what is removed, so that all its directions weigh alike in the error
/// feedback and in the leak, whatever the scale of the solver's columns.
struct FoldFactors {
  std::int64_t width = 0;
  std::int64_t k = 0;
  std::vector<double> n;
  std::vector<double> m;
};

/// Input side W P: rows of W with N = A, M = B. Output side P W, bias P b and rows P e: columns of
/// W, the bias or rows of the embedding with N = B, M = A.
/// @throws NumericalError naming the site if the removed directions are linearly dependent.
FoldFactors make_factors(const io::StoredSubspace& subspace, FoldSide side);

/// A matrix [width × k] packed for the kernels: groups of kGroup rows, then k, then the row in the
/// group.
template <class Real>
class Panel {
 public:
  Panel() = default;
  Panel(std::span<const double> matrix, std::int64_t width, std::int64_t k);

  std::int64_t k() const noexcept { return k_; }
  std::int64_t groups() const noexcept { return groups_; }
  const Real* group(std::int64_t g) const { return data_.data() + g * k_ * kGroup; }

 private:
  std::int64_t k_ = 0;
  std::int64_t groups_ = 0;
  std::vector<Real> data_;
};

/// sums [k] += w N over entries [first, first + length of tile) of the vectors; `first` must be a
/// multiple of kGroup, and so must `chunk`: products over so many entries are summed in Real, then
/// added in fp64.
template <class Real>
void project(const Panel<Real>& n, std::int64_t first, std::span<const Lanes<Real>> tile,
             std::span<Lanes<double>> sums, std::int64_t chunk = 256);

/// w ← w − sums Mᵀ, over the whole length.
template <class Real>
void subtract(const Panel<Real>& m, std::span<const Lanes<double>> sums,
              std::span<Lanes<Real>> tile);

/// True if no entry is NaN or larger in magnitude than `limit`.
template <class Real>
bool all_within(std::span<const Lanes<Real>> tile, Real limit);

/// Σ of squares over all entries and lanes.
double squared_norm(std::span<const Lanes<double>> sums);

}  // namespace mrp::shard
