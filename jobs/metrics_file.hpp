// metrics.json: what `evaluate` measured, with the values of every item.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace mrp::shard {
struct SetMetrics;  // of shard/evaluate.hpp
}

namespace mrp::jobs {

/// {"format": "mrp.metrics", "version": 2, "fingerprint": ..., "sets": {NAME: {"base": MEASURED,
/// "unlearned": MEASURED, "control": MEASURED}}, ...}, followed by the parts of the comparison,
/// which a finished evaluation has; MEASURED holds "fingerprint" (of checkpoint, tokens and
/// settings), "count", the means, their "intervals" and "items".
struct MetricsFile {
  std::string fingerprint;
  std::map<std::string, std::map<std::string, nlohmann::json>> sets;
  nlohmann::json comparison = nlohmann::json::object();

  /// Empty if there is no such file or it is not one of ours: it will be made again.
  static MetricsFile read(const std::filesystem::path& path);
  /// Atomic; one rank calls it.
  void write(const std::filesystem::path& path) const;
};

/// MEASURED without means and intervals: "fingerprint", "count" and "items".
nlohmann::json to_json(const shard::SetMetrics& metrics, const std::string& fingerprint);

}  // namespace mrp::jobs
