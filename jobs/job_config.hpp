// The job file: typed, complete with defaults, and strict about what it does not know.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "shard/edit/merge.hpp"
#include "solver/subspace.hpp"

namespace mrp::shard {
enum class Positions;  // of shard/capture.hpp, which would bring LibTorch into every file that
                       // reads a job
}

namespace mrp::jobs {

enum class Device { automatic, cpu, cuda };
enum class Compute { automatic, bf16, fp32 };

/// A job file with overrides applied and defaults filled in. Paths are absolute.
struct JobConfig {
  std::filesystem::path model;
  std::filesystem::path output;
  std::filesystem::path work;

  struct Data {
    std::filesystem::path forget;
    std::filesystem::path retain;
    std::map<std::string, std::filesystem::path> evaluate;  ///< more sets, by name
    std::string prompt_template = "auto";
    std::int64_t max_tokens = 1024;
    double overlap_limit = 0.01;
  } data;

  struct Sites {
    std::vector<std::string> modules{"o_proj.input", "down_proj.input"};
    std::optional<std::vector<std::int64_t>> layers;  ///< ascending; empty: all
    shard::Positions positions{};                     ///< target
  } sites;

  solver::SubspaceOptions subspace;

  struct Refine {
    std::int64_t samples = 2500;
    std::int64_t sample_tokens = 128;
  } refine;

  struct Merge {
    shard::Rounding rounding = shard::Rounding::error_feedback;
  } merge;

  struct Parallel {
    std::optional<int> tensor;  ///< empty: chosen from the rank count
    std::int64_t batch_tokens = 4096;
  } parallel;

  Device device = Device::automatic;
  Compute compute = Compute::automatic;
  std::uint64_t seed = 0;

  /// Every token set by name: "forget", "retain" and those of data.evaluate.
  std::map<std::string, std::filesystem::path> sets() const;
};

/// The job of `text`, the content of `file` (which names it in messages and whose folder relative
/// paths start from), with `overrides` "key.sub=value" on top. @throws UsageError
/// "FILE:LINE:COLUMN: ..." that says what is wrong and what is allowed.
JobConfig parse_job(const std::filesystem::path& file, const std::string& text,
                    const std::vector<std::string>& overrides);

/// Every key with its value, nested as in the job file; the base of fingerprints.
nlohmann::json settings(const JobConfig& config);

/// All keys as a Markdown table: key, allowed values, default, meaning.
std::string key_table();

}  // namespace mrp::jobs
