// What an artefact was made from, as 32 hexadecimal digits.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "jobs/job_config.hpp"

namespace mrp::jobs {

/// By artefact: "base" and, if the job names one, "control" (checkpoints), "set.NAME" (one token
/// set) and one for every stage. Each is a hash of the stage's name and revision, the settings that
/// matter to it, and the fingerprints of what it reads.
using Fingerprints = std::map<std::string, std::string>;

/// XXH3-128 of the value's canonical text (keys sorted) and this version of mrp.
std::string fingerprint(const nlohmann::json& value);

/// Of what a stage computes with `settings` from `inputs`, or of a part of it that is kept by
/// itself: another revision of the stage gives another one. @pre `stage` is one of all_stages().
std::string stage_fingerprint(const std::string& stage, const nlohmann::json& settings,
                              const nlohmann::json& inputs);

/// Those that a job asks for. Reads the JSONL and tokenizer files and the headers of the
/// checkpoint; one rank calls it.
/// @throws InputError for files that are missing or broken.
Fingerprints expected_fingerprints(const JobConfig& config);

}  // namespace mrp::jobs
