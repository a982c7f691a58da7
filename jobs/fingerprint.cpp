#include "jobs/fingerprint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "io/checkpoint.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"
#include "jobs/continuation.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

/// To be raised when a stage computes something else from the same input.
constexpr std::array<std::pair<std::string_view, int>, 8> kRevisions{{{"prepare", 2},
                                                                      {"capture", 1},
                                                                      {"solve", 1},
                                                                      {"sample", 2},
                                                                      {"refine", 17},
                                                                      {"merge", 1},
                                                                      {"evaluate", 2},
                                                                      {"relearn", 3}}};

std::string file_hash(const std::filesystem::path& path) {
  return io::xxh3_128(io::read_text(path));
}

/// Of everything that decides how text becomes tokens.
std::string tokenizer_hash(const io::Checkpoint& checkpoint) {
  constexpr std::array kPrefixes = {
      "tokenizer", "special_tokens_map", "added_tokens", "chat_template", "vocab",
      "merges",    "config.json"};
  json files = json::object();
  for (const auto& path : checkpoint.side_files()) {
    const std::string name = path.filename().string();
    if (std::any_of(kPrefixes.begin(), kPrefixes.end(),
                    [&](const char* prefix) { return name.starts_with(prefix); })) {
      files[name] = file_hash(path);
    }
  }
  return fingerprint(files);
}

/// Of the sets that come from JSONL files, by name.
json set_fingerprints(const JobConfig& config, const json& data, const std::string& tokenizer) {
  json sets = json::object();
  for (const auto& [name, path] : config.sets()) {
    const json made_of = json::object({{"template", data.at("template")},
                                       {"max_tokens", data.at("max_tokens")},
                                       {"tokenizer", tokenizer},
                                       {"records", file_hash(path)}});
    sets[name] = stage_fingerprint("prepare", made_of, name);
  }
  return sets;
}

}  // namespace

std::string fingerprint(const json& value) {
  return io::xxh3_128(json::object({{"version", MRP_VERSION}, {"value", value}}).dump());
}

std::string stage_fingerprint(const std::string& stage, const json& settings, const json& inputs) {
  const auto revision = std::find_if(kRevisions.begin(), kRevisions.end(),
                                     [&](const auto& entry) { return entry.first == stage; });
  return fingerprint(json::object({{"stage", stage},
                                   {"revision", revision->second},
                                   {"settings", settings},
                                   {"inputs", inputs}}));
}

Fingerprints expected_fingerprints(const JobConfig& config) {
  const io::Checkpoint checkpoint(config.model);
  const json all = settings(config);
  const json& data = all.at("data");

  Fingerprints result;
  result["base"] = checkpoint.fingerprint();
  const auto pick = [&](std::initializer_list<const char*> keys) {
    json picked = json::object();
    for (const char* key : keys) picked[key] = all.at(key);
    return picked;
  };
  json sets = set_fingerprints(config, data, tokenizer_hash(checkpoint));
  // Training reads them too: what was forgotten before must stay so.
  json earlier = json::array();
  for (const auto& [name, set] : earlier_requests(config)) {
    sets[name] = digest(set);
    earlier.push_back(sets[name]);
  }
  for (const auto& [name, set] : sets.items()) result["set." + name] = set;
  result["prepare"] = stage_fingerprint("prepare", data.at("overlap_limit"), sets);
  // These read two sets of tokens.h5: that a further set joined the file does not concern them.
  const json fitted_on = json::array({result["base"], result["set.forget"], result["set.retain"]});
  json edits = json::array({result["base"]});
  if (config.samples() > 0) {
    json sampling = pick({"seed", "compute"});
    sampling["samples"] = config.samples();
    sampling["sample_tokens"] = config.refine.sample_tokens;
    result["sample"] = stage_fingerprint("sample", sampling, fitted_on);
  }
  if (config.project) {
    json captured_of = fitted_on;
    if (config.sites.samples > 0) captured_of.push_back(result["sample"]);
    result["capture"] = stage_fingerprint("capture", pick({"sites", "compute"}), captured_of);
    const json solved_from =
        json::array({result["capture"], earlier_subspaces(config).fingerprint});
    result["solve"] = stage_fingerprint("solve", pick({"subspace", "seed"}), solved_from);
    edits.push_back(result["solve"]);
  }
  if (config.refine.train != JobConfig::Train::none) {
    json trained_on = json::array({fitted_on, edits, earlier});
    if (config.refine.samples > 0) trained_on.push_back(result["sample"]);
    result["refine"] = stage_fingerprint("refine", pick({"refine", "seed", "compute"}), trained_on);
    edits.push_back(result["refine"]);
  }
  result["merge"] = stage_fingerprint("merge", pick({"merge"}), edits);
  json measured = json::array({result["base"], result["merge"], sets});
  json attacked = json::array({fitted_on, result["merge"]});
  if (!config.evaluate.control.empty()) {
    result["control"] = io::Checkpoint(config.evaluate.control).fingerprint();
    for (json* models : {&measured, &attacked}) models->push_back(result["control"]);
  }
  const json how = {{"compute", all.at("compute")},
                    {"holdout", config.evaluate.holdout},
                    {"generate", config.evaluate.generate}};
  result["evaluate"] = stage_fingerprint("evaluate", how, measured);
  result["relearn"] = stage_fingerprint("relearn", pick({"relearn", "compute"}), attacked);
  return result;
}

}  // namespace mrp::jobs
