// The stages of a job: their order, what each reads and makes, and which of them need to run.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/timer.hpp"
#include "io/manifest.hpp"
#include "jobs/fingerprint.hpp"
#include "jobs/job_config.hpp"
#include "jobs/workspace.hpp"

namespace mrp::jobs {

/// What a stage works with. The same on all ranks, but for `manifest`, which only rank 0 keeps.
struct Job {
  JobConfig config;
  Workspace work;
  const dist::Communicator* world = nullptr;
  int threads = 1;     ///< of a rank
  bool force = false;  ///< nothing that exists is reused
  Fingerprints expected;
  io::Manifest manifest;
  dist::Timers timers;  ///< of the stage that runs
};

struct Stage {
  std::string name;
  std::string help;
  std::vector<std::string> inputs;  ///< stages whose artefacts it reads, where the job has them
  /// What the stage makes; the first path carries the fingerprint.
  std::function<std::vector<std::filesystem::path>(const Job&)> outputs;
  /// The fingerprint that the artefact on disk carries, "" if there is none.
  std::function<std::string(const Job&)> present;
  /// Collective over the world.
  std::function<void(Job&)> run;
  /// Not part of `mrp run`: it takes longer than the rest together.
  bool on_request = false;
};

/// All stages in order.
const std::vector<Stage>& all_stages();

/// Whether the job has the stage at all: whether a fingerprint is expected of it.
bool has_stage(const Job& job, const std::string& name);

/// Collective over the world. @throws InputError that names the stage to run if an artefact of the
/// stages `inputs`, which `what` needs, is missing or was made with other settings.
void require_inputs(const Job& job, const std::vector<Stage>& stages, const std::string& what,
                    const std::vector<std::string>& inputs);

/// Collective over the world. Runs `stages[index]`, which the job has, unless its artefact carries
/// the expected fingerprint, and records it in the manifest. @throws InputError if an input is
/// missing or was made with other settings (names the stage to run), and whatever the stage throws.
void run_stage(Job& job, const std::vector<Stage>& stages, std::size_t index);

}  // namespace mrp::jobs
