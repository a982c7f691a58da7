// relearn.json: what attacks brought back, as curves over the attackers' steps.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace mrp::jobs {

/// {"format": "mrp.relearn", "version": 1, "fingerprint": ..., "runs": [RUN, ...]}; RUN holds
/// "fingerprint" (of model, data and attack), "model" (base, unlearned or control), "attacker",
/// "learning_rate", "seed", "direction", "projection" (folded or kept) and "curve": for each scored
/// step "step" and the means over the attacked items.
struct RelearnFile {
  std::string fingerprint;  ///< empty until every attack is done
  nlohmann::json runs = nlohmann::json::array();

  /// Empty if there is no such file or it is not one of ours: it will be made again.
  static RelearnFile read(const std::filesystem::path& path);
  /// Atomic; one rank calls it.
  void write(const std::filesystem::path& path) const;
};

}  // namespace mrp::jobs
