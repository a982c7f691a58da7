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
// Of shard/capture.hpp and shard/model/layers.hpp, which would bring LibTorch into every file that
// reads a job.
enum class Positions;
enum class Residency;
}  // namespace mrp::shard

namespace mrp::jobs {

enum class Device { automatic, cpu, cuda };
enum class Compute { automatic, bf16, fp32 };
enum class Preset { reliable, fast, paper };

/// A job file with overrides applied and defaults filled in. Paths are absolute.
struct JobConfig {
  Preset preset = Preset::reliable;  ///< what the defaults of the other keys are
  std::filesystem::path model;
  std::filesystem::path continued;     ///< instead of a model: see continuation.hpp
  std::filesystem::path earlier_work;  ///< work directory of what is continued; empty if gone
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
    std::int64_t samples = 0;                         ///< whose states count as retain states
  } sites;

  solver::SubspaceOptions subspace;

  bool project = false;  ///< solve projections and fold them

  enum class Train { none, subspace, projections, lora, weights };
  enum class ForgetLoss {
    indifference,
    counterfactual,
    unlikelihood,
    gradient_ascent,
    grad_diff,
    npo,
    simnpo,
    rmu,
    uniform
  };
  enum class RetainLoss { match, cross_entropy, kl };
  enum class Optimizer { adamw, sgd };
  struct Refine {
    Train train = Train::subspace;
    ForgetLoss forget_loss = ForgetLoss::indifference;
    RetainLoss retain_loss = RetainLoss::match;
    double retain_weight = 2;
    std::int64_t steps = 1000;
    double stop_below = 0;
    std::int64_t batch = 16;
    double learning_rate = 1e-3;
    Optimizer optimizer = Optimizer::adamw;
    double softness = 0.1;
    std::optional<double> output_softness;  ///< empty: by the forget set
    std::int64_t directions = 0;
    double shrink = 0;
    std::int64_t grow_rounds = 0;
    std::int64_t grow_directions = 2;
    std::vector<std::string> modules{"qkv", "o_proj", "gate_up", "down_proj"};
    double forget_weight = 1.5;
    std::int64_t lora_rank = 16;
    bool lora_confined = false;
    std::int64_t samples = 16000;
    std::int64_t sample_batch = 48;
    double sample_weight = 7;
    std::int64_t sample_tokens = 128;
    std::int64_t tamper_resistance = 150;
    double tamper_weight = 5;
    bool agree_signs = false;
  } refine;

  struct Merge {
    shard::Rounding rounding = shard::Rounding::error_feedback;
  } merge;

  struct Evaluate {
    std::filesystem::path control;  ///< a model that never saw the forget set; empty: none
    std::string holdout;            ///< one of data.evaluate; empty: none
    bool generate = false;
  } evaluate;

  struct Relearn {
    std::vector<std::string> attackers{"qv_lora", "all_weights", "benign", "int8", "int4"};
    std::vector<std::int64_t> steps{10, 20, 40};
    std::vector<double> learning_rates{5e-4, 2e-3};
    std::vector<std::int64_t> seeds{0};
  } relearn;

  struct Parallel {
    std::optional<int> tensor;                  ///< empty: chosen from the rank count
    std::optional<std::int64_t> batch_tokens;   ///< empty: what suits the device
    std::optional<shard::Residency> residency;  ///< of capture; empty: layer if all do not fit
  } parallel;

  Device device = Device::automatic;
  Compute compute = Compute::automatic;
  std::uint64_t seed = 0;

  /// Every token set by name: "forget", "retain" and those of data.evaluate.
  std::map<std::string, std::filesystem::path> sets() const;
  /// How many samples of the base model the job draws; 0: it has no such stage.
  std::int64_t samples() const;
};

/// The defaults of a preset.
JobConfig preset_defaults(Preset preset);

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
