// The keys of a job file, each declared once: the source of binding, error messages, --set and
// key_table().
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jobs/job_config.hpp"

namespace mrp::jobs {

struct Key {
  std::string path{};     ///< "subspace.ridge"; a last part "*" stands for any name
  std::string allowed{};  ///< completes "KEY must be ..."
  std::string help{};     ///< one line
  bool required = false;
  std::string standard{};  ///< the default in words, where the value itself would not tell
  std::vector<std::string> choices{};  ///< the words that are allowed, for suggestions
  /// Stores the value; false if it is not an allowed one. `name` is what stands for "*".
  std::function<bool(JobConfig&, const std::string& name, const YAML::Node&)> bind{};
  /// The value of a configuration.
  std::function<nlohmann::json(const JobConfig&)> show{};
};

/// In the order of the documentation.
const std::vector<Key>& keys();

}  // namespace mrp::jobs
