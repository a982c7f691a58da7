// manifest.json: which stages ran on what, how long, and what became of every tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dist/timer.hpp"

namespace mrp::io {

struct StageRecord {
  std::string fingerprint;
  std::string version;
  int ranks = 1;
  double seconds = 0;
  std::uint64_t peak_memory = 0;  ///< bytes, largest rank
  std::uint64_t sent = 0;         ///< bytes handed to collectives, the rank with the most
  std::vector<dist::TimerEntry> timers;
  std::vector<std::string> outputs;
};

struct TensorRecord {
  bool changed = false;
  std::string sha256;
  double leak = 0;  ///< of the changed tensor, measured from the written bytes; 0 when unchanged
};

struct Manifest {
  std::map<std::string, StageRecord> stages;
  std::map<std::string, TensorRecord> tensors;
  std::string compared;  ///< fingerprint of the continued checkpoint whose weights were compared

  /// An empty manifest if there is no file. @throws InputError if it cannot be parsed.
  static Manifest read(const std::filesystem::path& path);
  void write(const std::filesystem::path& path) const;
};

}  // namespace mrp::io
