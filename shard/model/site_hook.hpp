// What a caller may do at the sites during a forward pass.
#pragma once

#include <torch/types.h>

#include <functional>
#include <optional>

#include "shard/site.hpp"

namespace mrp::shard {

/// Called in forward for every site of the model. `states` is [batch × length × local width]: this
/// tensor rank's slice at split sites, complete otherwise. Whoever returns a tensor replaces the
/// states.
using SiteHook =
    std::function<std::optional<torch::Tensor>(const Site&, const torch::Tensor& states)>;

}  // namespace mrp::shard
