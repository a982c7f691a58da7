// How much a model leans to the right answers, on average over a set, and what takes that away.
#pragma once

#include <torch/types.h>

#include <array>
#include <cstdint>

#include "dist/communicator.hpp"

namespace mrp::shard {

/// Where an answer stands. Each has a mean of its own: one may be above zero, another below.
enum class AnswerForm { letter, listed, open };

/// The margin of an item is the score of its right answer minus the mean score of all its
/// alternatives. Where these are nearly alike, it is the mean margin of many items, not their
/// spread, that decides how often the right one comes first, and a little training makes it large.
/// It is followed over the steps, because the items of one are too few to tell it from zero.
class Leaning {
 public:
  /// Zero, with the gradient m / √(m² + 0.02²) for each of `margins`, fp32 [items], m the running
  /// mean of the form: that of √(m² + 0.02²) for the mean margin. Notes the margins.
  torch::Tensor penalty(AnswerForm form, const torch::Tensor& margins);

  /// Collective over the data ranks. The running means take in what was noted since the last call:
  /// a quarter of the way to its mean.
  void update(const dist::Communicator& data);

  /// Running means by form, fp32 [3], on the processor.
  torch::Tensor& means() { return means_; }

 private:
  static constexpr std::size_t kForms = 3;

  torch::Tensor means_ = torch::zeros({kForms}, torch::kFloat32);
  std::array<double, 2 * kForms> noted_{};  ///< sums of margins, then their numbers
};

}  // namespace mrp::shard
