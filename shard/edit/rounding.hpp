// Rounding to bf16 or f16 that keeps the error out of the removed directions, or its mean at zero.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "shard/edit/fold.hpp"
#include "shard/edit/tile.hpp"

namespace mrp::shard {

/// error_feedback: with a trained change, rounding at random comes first, and is all where nothing
/// is folded.
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

  /// The same, but the sweeps begin with `chosen`, neighbours of the exact values picked otherwise,
  /// and replace only what the leak asks for.
  void round_from(std::span<const Lanes<float>> chosen, std::span<Lanes<float>> tile,
                  std::span<const Lanes<double>> removed);

 private:
  void sweep(std::int64_t begin, std::int64_t end, std::span<const Lanes<float>> tile);
  void sweep_until_good(int sweeps, std::span<Lanes<float>> tile,
                        std::span<const Lanes<double>> removed);
  bool good_enough(double target) const;

  io::DType dtype_;
  Panel<float> n_;
  std::vector<float> gram_;          ///< N Nᵀ within each group [groups × kGroup × kGroup]
  std::vector<Lanes<float>> state_;  ///< e [k]
  std::vector<Lanes<float>> error_;  ///< chosen − exact [padded width]
};

/// Replaces each value by its lower or its upper neighbour in `dtype` (bf16 or f16), the closer the
/// likelier, so that the mean of the result is the value: changes below half the spacing, which
/// rounding to nearest would undo, survive in every sum over many weights. Chance is a hash of
/// `seed` and of the value's place in the tensor; the lanes are its vectors from `first` on. None
/// may exceed the largest number of `dtype`. Source: stochastic rounding, Gupta et al., "Deep
/// Learning with Limited Numerical Precision", ICML 2015.
void round_at_random(std::span<Lanes<float>> tile, std::int64_t first, std::uint32_t seed,
                     io::DType dtype);

}  // namespace mrp::shard
