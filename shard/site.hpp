// A site: where hidden states are captured and a projection acts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/model_config.hpp"

namespace mrp::shard {

enum class SiteModule { qkv, o_proj, gate_up, down_proj, stream };
enum class Side { input, output };

/// "layers.12.down_proj.input". The stream has one side: "layers.12.stream.output", the residual
/// stream after the layer.
struct Site {
  std::int64_t layer = 0;
  SiteModule module{};
  Side side{};

  std::string name() const;
  /// @throws UsageError that lists what is allowed.
  static Site parse(const std::string& name);
  /// Length of the site's vectors.
  std::int64_t width(const io::ModelConfig& config) const;
  /// True when tensor-parallel ranks hold column slices of the vectors (o_proj.input,
  /// down_proj.input).
  bool is_split() const;
  auto operator<=>(const Site&) const = default;
};

/// Sites of all `layers` × `modules` ("o_proj.input", "down_proj.output", "stream.output", ...), in
/// order of the forward pass.
/// @throws UsageError for unknown modules or layers outside the model.
std::vector<Site> make_sites(const std::vector<std::string>& modules,
                             const std::vector<std::int64_t>& layers,
                             const io::ModelConfig& config);

}  // namespace mrp::shard
