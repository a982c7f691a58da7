// AdamW and SGD over the leaves of a Trainable; the state is divided over the data ranks.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "dist/partition.hpp"
#include "shard/train/trainable.hpp"

namespace mrp::shard {

enum class OptimizerKind { adamw, sgd };

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< of AdamW; no weight decay
  double clip = 1.0;                                  ///< largest gradient norm; 0: any
};

/// What AdamW knows of a tensor: running means of its gradient and of the squares, fp32, and the
/// number of steps so far.
struct Moments {
  torch::Tensor first, second, steps;
};

Moments zero_moments(const torch::Tensor& value);

/// One AdamW step on a contiguous fp32 tensor. Not collective.
void adamw(torch::Tensor value, const torch::Tensor& gradient, Moments& moments,
           double learning_rate, const OptimizerOptions& options);

/// Collective over `ranks`. The element-wise sum, in fp32; device tensors pass through the host.
void sum_over(const dist::Communicator& ranks, torch::Tensor values);

/// Moves the leaves into one buffer (they become views of it), as their gradients. Each data rank
/// keeps the moments of its share of the buffer (ZeRO stage 1, arXiv 1910.02054).
class Optimizer {
 public:
  /// Not collective. The trainable must outlive it.
  Optimizer(Trainable& trainable, const dist::ParallelLayout& layout,
            const OptimizerOptions& options);

  void zero_gradients();
  /// Collective over the world. Completes the gradients: what the trainable has collected, summed
  /// over all ranks.
  void reduce();
  /// Collective over the tensor ranks. Norm of the gradients of all tensor ranks.
  double gradient_norm() const;
  /// Collective over the world. Clips the complete gradients and moves the leaves. Returns the norm
  /// before clipping. @throws NumericalError if it is NaN or infinite; nothing has moved then.
  double step(double learning_rate);

  /// All values, and all gradients, of this tensor rank.
  torch::Tensor& values() { return values_; }
  torch::Tensor& gradients() { return gradients_; }
  /// The moments of this data rank's share, and the number of steps, to save and restore.
  std::vector<torch::Tensor> state() const {
    return {moments_.first, moments_.second, moments_.steps};
  }

 private:
  void update(double learning_rate);

  Trainable* trainable_;
  const dist::ParallelLayout* layout_;
  OptimizerOptions options_;
  torch::Tensor values_, gradients_;
  dist::Range share_;
  Moments moments_;
};

}  // namespace mrp::shard
