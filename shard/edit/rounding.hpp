// Rounding to bf16 or f16 that keeps the error out of the removed directions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "shard/edit/fold.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

enum class Rounding { nearest, error_feedback };

/// Chooses for every entry the lower or the upper neighbour in `dtype` such that e = Nᵀ(error) of
/// each vector stays near 0: greedily, one entry after the other, the choice with the smaller ‖e‖.
/// The first sweep leaves e at about √(k/width) of what nearest rounding leaves; later sweeps
/// reconsider each entry given all others, which lowers it by another factor of 3 to 300 because
/// the entries near zero, whose neighbours are close, do the fine work. Sweeps stop as soon as the
/// leak of a tile is below kTarget, and after kMaxSweeps.
class ErrorFeedback {
 public:
  static constexpr double kTarget = 3e-5;
  static constexpr int kMaxSweeps = 4;

  /// `dtype` must be bf16 or f16.
  ErrorFeedback(const FoldFactors& factors, io::DType dtype);

  /// Replaces the exact values by the chosen neighbours; values that `dtype` represents stay. None
  /// may exceed the largest number of `dtype`. `removed` are the projections w N that the fold took
  /// out: the leak is relative to them.
  void round(std::span<Lanes<float>> tile, std::span<const Lanes<double>> removed);

 private:
  bool good_enough(double target) const;

  io::DType dtype_;
  Panel<float> n_;
  std::vector<float> gram_;          ///< N Nᵀ within each group [groups × kGroup × kGroup]
  std::vector<Lanes<float>> state_;  ///< e [k]
  std::vector<Lanes<float>> error_;  ///< chosen − exact [padded width]
};

}  // namespace mrp::shard
