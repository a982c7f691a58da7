// world = data × tensor. Ranks of one tensor group hold one copy of the model and are neighbours.
#pragma once

#include "dist/communicator.hpp"

namespace mrp::dist {

/// World rank r has tensor index r % tensor and data index r / tensor (Megatron's order).
class ParallelLayout {
 public:
  /// Collective over `world`. @throws UsageError if `tensor_size` does not divide the world size.
  ParallelLayout(const Communicator& world, int tensor_size);

  const Communicator& world() const noexcept { return *world_; }
  const Communicator& tensor() const noexcept { return tensor_; }
  const Communicator& data() const noexcept { return data_; }

 private:
  const Communicator* world_;
  Communicator tensor_;
  Communicator data_;
};

}  // namespace mrp::dist
