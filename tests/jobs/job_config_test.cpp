#include "jobs/job_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/error.hpp"
#include "jobs/config_keys.hpp"
#include "shard/capture.hpp"

namespace mrp::jobs {
namespace {

using Values = std::vector<std::int64_t>;
using nlohmann::json;

// Six lines; what a case adds starts in line 6.
const std::string kBase =
    "model: base\n"
    "output: out\n"
    "data:\n"
    "  forget: forget.jsonl\n"
    "  retain: retain.jsonl\n";

JobConfig parse(const std::string& more, const std::vector<std::string>& overrides = {}) {
  return parse_job("/jobs/job.yaml", kBase + more, overrides);
}

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse_job("job.yaml", text, overrides);
  } catch (const dist::UsageError& error) {
    EXPECT_EQ(error.exit_code(), dist::ExitCode::usage);
    return error.what();
  }
  return "no error";
}

TEST(JobConfigTest, PathsAreRelativeToTheJobFile) {
  const JobConfig config = parse_job("/jobs/a/job.yaml",
                                     "model: ../base\noutput: /out\ndata: {forget: f, retain: ./r, "
                                     "evaluate: {world: w/x.jsonl}}\n",
                                     {});
  EXPECT_EQ(config.model, "/jobs/base");
  EXPECT_EQ(config.output, "/out");
  EXPECT_EQ(config.work, "/out.work");
  EXPECT_EQ(config.data.forget, "/jobs/a/f");
  EXPECT_EQ(config.data.retain, "/jobs/a/r");
  EXPECT_EQ(config.data.evaluate.at("world"), "/jobs/a/w/x.jsonl");
  EXPECT_EQ(config.sets().size(), 3U);
}

TEST(JobConfigTest, EveryKeyTakesItsValue) {
  const JobConfig config = parse(
      "  template: plain\n  max_tokens: 77\n  overlap_limit: 0.5\n  evaluate: {more: m}\n"
      "work: w\n"
      "sites: {modules: [qkv.input, stream.output], layers: [3, 0-1, 9-9], positions: all}\n"
      "subspace: {rule: cpca, dimension: 7, max_dimension: 9, ridge: 1e-3, alpha: 2, "
      "retain_energy: 0.5, projector: orthogonal, route: sample}\n"
      "project: true\n"
      "merge: {rounding: nearest}\n"
      "relearn: {attackers: [int4, benign], steps: [2, 3], learning_rates: [1e-4, 2], "
      "seeds: [0, 7]}\n"
      "evaluate: {control: never, holdout: more, generate: true}\n"
      "parallel: {tensor: 2, batch_tokens: 99, residency: layer}\n"
      "device: cpu\ncompute: fp32\nseed: 5\n");
  EXPECT_EQ(config.work, "/jobs/w");
  EXPECT_EQ(config.data.prompt_template, "plain");
  EXPECT_EQ(config.data.max_tokens, 77);
  EXPECT_EQ(config.data.overlap_limit, 0.5);
  EXPECT_THAT(config.sites.modules, testing::ElementsAre("qkv.input", "stream.output"));
  EXPECT_EQ(config.sites.layers, (Values{0, 1, 3, 9}));
  EXPECT_EQ(config.sites.positions, shard::Positions::all);
  EXPECT_EQ(config.subspace.rule, solver::Rule::cpca);
  EXPECT_EQ(config.subspace.dimension, 7);
  EXPECT_EQ(config.subspace.max_dimension, 9);
  EXPECT_EQ(config.subspace.ridge, 1e-3);
  EXPECT_EQ(config.subspace.alpha, 2);
  EXPECT_EQ(config.subspace.retain_energy, 0.5);
  EXPECT_EQ(config.subspace.projector, solver::ProjectorKind::orthogonal);
  EXPECT_EQ(config.subspace.route, solver::Route::sample_space);
  EXPECT_EQ(config.subspace.seed, 5U);
  EXPECT_TRUE(config.project);
  EXPECT_EQ(config.merge.rounding, shard::Rounding::nearest);
  EXPECT_THAT(config.relearn.attackers, testing::ElementsAre("int4", "benign"));
  EXPECT_EQ(config.relearn.steps, (Values{2, 3}));
  EXPECT_THAT(config.relearn.learning_rates, testing::ElementsAre(1e-4, 2));
  EXPECT_EQ(config.relearn.seeds, (Values{0, 7}));
  EXPECT_EQ(config.evaluate.control, "/jobs/never");
  EXPECT_EQ(config.evaluate.holdout, "more");
  EXPECT_TRUE(config.evaluate.generate);
  EXPECT_EQ(config.parallel.tensor, 2);
  EXPECT_EQ(config.parallel.batch_tokens, 99);
  EXPECT_EQ(config.parallel.residency, shard::Residency::layer);
  EXPECT_EQ(config.device, Device::cpu);
  EXPECT_EQ(config.compute, Compute::fp32);
  EXPECT_EQ(config.seed, 5U);
}

TEST(JobConfigTest, EveryKeyOfTrainingTakesItsValue) {
  const auto refine =
      parse(
          "refine: {train: lora, forget_loss: npo, retain_loss: kl, forget_weight: 0, "
          "retain_weight: 3, steps: 4, stop_below: 0.125, batch: 5, learning_rate: 0.25, "
          "optimizer: sgd, softness: 0.5, directions: 11, shrink: 0.25, modules: [qkv], "
          "grow_rounds: 3, grow_directions: 4, lora_rank: 6, lora_confined: true, samples: 0, "
          "sample_batch: 7, sample_weight: 0.75, sample_tokens: 8, tamper_resistance: 9, "
          "tamper_weight: 0.5}\n")
          .refine;
  EXPECT_EQ(refine.train, JobConfig::Train::lora);
  EXPECT_EQ(refine.forget_loss, JobConfig::ForgetLoss::npo);
  EXPECT_EQ(refine.retain_loss, JobConfig::RetainLoss::kl);
  EXPECT_EQ(refine.forget_weight, 0);
  EXPECT_EQ(refine.retain_weight, 3);
  EXPECT_EQ(std::tuple(refine.steps, refine.batch), std::tuple(4, 5));
  EXPECT_EQ(refine.learning_rate, 0.25);
  EXPECT_EQ(refine.optimizer, JobConfig::Optimizer::sgd);
  EXPECT_EQ(std::tuple(refine.stop_below, refine.softness), std::tuple(0.125, 0.5));
  EXPECT_EQ(std::tuple(refine.directions, refine.shrink), std::tuple(11, 0.25));
  EXPECT_EQ(std::tuple(refine.grow_rounds, refine.grow_directions), std::tuple(3, 4));
  EXPECT_THAT(refine.modules, testing::ElementsAre("qkv"));
  EXPECT_EQ(refine.lora_rank, 6);
  EXPECT_TRUE(refine.lora_confined);
  EXPECT_EQ(std::tuple(refine.samples, refine.sample_batch), std::tuple(0, 7));
  EXPECT_EQ(refine.sample_weight, 0.75);
  EXPECT_EQ(refine.sample_tokens, 8);
  EXPECT_EQ(std::tuple(refine.tamper_resistance, refine.tamper_weight), std::tuple(9, 0.5));
}

TEST(JobConfigTest, EveryKeyIsShownAndHasADefaultUnlessRequired) {
  const json shown = settings(parse(""));
  const std::string table = key_table();
  for (const Key& key : keys()) {
    EXPECT_FALSE(key.allowed.empty() || key.help.empty()) << key.path;
    EXPECT_THAT(table, testing::HasSubstr("| `" + key.path + "` | ")) << key.path;
    std::string pointer = "/" + key.path;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    if (pointer.ends_with("/*")) pointer.resize(pointer.size() - 2);
    EXPECT_TRUE(shown.contains(json::json_pointer(pointer))) << key.path;
  }
  EXPECT_THAT(table,
              testing::HasSubstr(
                  "| `subspace.dimension` | auto or an integer from 1 to 1000000 | `auto` |"));
  EXPECT_THAT(table, testing::HasSubstr("| `model` | a path | required |"));
  EXPECT_EQ(shown["subspace"]["ridge"], 0.01);
  EXPECT_EQ(shown["sites"]["layers"], "all");
}

TEST(JobConfigTest, LayersAreRangesNumbersAndLists) {
  const std::pair<const char*, Values> cases[] = {
      {"2-4", {2, 3, 4}}, {"5", {5}}, {"[7, 1]", {1, 7}}, {"[2-3, 3-5, 0]", {0, 2, 3, 4, 5}}};
  for (const auto& [text, layers] : cases) {
    EXPECT_EQ(parse("", {std::string("sites.layers=") + text}).sites.layers, layers) << text;
  }
  EXPECT_EQ(parse("sites: {layers: 3}\n", {"sites.layers=all"}).sites.layers, std::nullopt);
}

TEST(JobConfigTest, OverridesWinInOrder) {
  const JobConfig config =
      parse("subspace: {dimension: 4}\n",
            {"subspace.dimension=16", "seed=1", "seed=2", "data.evaluate.world=w.jsonl",
             "sites={layers: 0-1, positions: all}", "subspace.rule=random"});
  EXPECT_EQ(config.subspace.dimension, 16);
  EXPECT_EQ(config.seed, 2U);
  EXPECT_EQ(config.data.evaluate.at("world"), "/jobs/w.jsonl");
  EXPECT_EQ(config.sites.layers, (Values{0, 1}));
  EXPECT_EQ(config.subspace.rule, solver::Rule::random);
  // A required key may come from the command line alone.
  EXPECT_EQ(parse_job("/j/x.yaml", "output: o\ndata: {forget: f, retain: r}\n", {"model=m"}).model,
            "/j/m");
}

struct ErrorCase {
  const char* name;
  std::string text;
  std::vector<std::string> overrides;
  std::string message;
};

void PrintTo(const ErrorCase& tested, std::ostream* out) {
  *out << tested.name;
}

class JobErrorTest : public testing::TestWithParam<ErrorCase> {};

TEST_P(JobErrorTest, NamesPlaceAndRemedy) {
  EXPECT_EQ(error_of(GetParam().text, GetParam().overrides), GetParam().message);
}

const std::string kTop =
    "preset, continue, model, output, work, data, sites, subspace, project, refine, merge, "
    "evaluate, relearn, parallel, device, compute, seed";
const std::string kSubspace =
    "rule, dimension, max_dimension, ridge, alpha, retain_energy, projector, route";

INSTANTIATE_TEST_SUITE_P(
    Cases, JobErrorTest,
    testing::Values(
        ErrorCase{"unknown_top_key",
                  kBase + "outptu: x\n",
                  {},
                  "job.yaml:6:1: unknown key \"outptu\"; did you mean \"output\"? (allowed: " +
                      kTop + ")"},
        ErrorCase{"unknown_key",
                  kBase + "subspace:\n  dimensoin: 4\n",
                  {},
                  "job.yaml:7:3: unknown key \"subspace.dimensoin\"; did you mean \"dimension\"? "
                  "(allowed in subspace: " +
                      kSubspace + ")"},
        ErrorCase{"unknown_without_suggestion",
                  kBase + "quux: 1\n",
                  {},
                  "job.yaml:6:1: unknown key \"quux\" (allowed: " + kTop + ")"},
        ErrorCase{
            "key_below_a_value",
            kBase + "seed: {start: 1}\n",
            {},
            "job.yaml:6:7: seed must be an integer from 0 to 4611686018427387904, not a section"},
        ErrorCase{"duplicate_top_key",
                  kBase + "seed: 1\nseed: 2\n",
                  {},
                  "job.yaml:7:1: key \"seed\" is given twice (first in line 6); remove one"},
        ErrorCase{"duplicate_section",
                  kBase + "sites: {layers: 1}\ndata: {template: auto}\n",
                  {},
                  "job.yaml:7:1: key \"data\" is given twice (first in line 3); remove one"},
        ErrorCase{
            "duplicate_key",
            kBase + "subspace: {ridge: 1, ridge: 1}\n",
            {},
            "job.yaml:6:22: key \"subspace.ridge\" is given twice (first in line 6); remove one"},
        ErrorCase{
            "missing_key",
            "output: o\n",
            {},
            "job.yaml:1:1: required key \"model\" is missing; add it (a path: checkpoint in the "
            "Hugging Face layout)"},
        ErrorCase{
            "missing_in_section",
            "model: m\noutput: o\ndata:\n  retain: r\n",
            {},
            "job.yaml:4:3: required key \"data.forget\" is missing; add it (a path: JSONL records "
            "to be forgotten)"},
        ErrorCase{"not_an_integer",
                  kBase + "subspace:\n  max_dimension: abc\n",
                  {},
                  "job.yaml:7:18: subspace.max_dimension must be an integer from 1 to 1000000, not "
                  "\"abc\""},
        ErrorCase{
            "integer_with_fraction",
            kBase + "seed: 1.5\n",
            {},
            "job.yaml:6:7: seed must be an integer from 0 to 4611686018427387904, not \"1.5\""},
        ErrorCase{"integer_out_of_range",
                  kBase + "  max_tokens: 1\n",
                  {},
                  "job.yaml:6:15: data.max_tokens must be an integer from 2 to 1000000, not \"1\""},
        ErrorCase{"integer_overflow",
                  kBase + "seed: 99999999999999999999\n",
                  {},
                  "job.yaml:6:7: seed must be an integer from 0 to 4611686018427387904, not "
                  "\"99999999999999999999\""},
        ErrorCase{"not_a_number",
                  kBase + "subspace: {ridge: high}\n",
                  {},
                  "job.yaml:6:19: subspace.ridge must be a number above 0, not \"high\""},
        ErrorCase{"number_out_of_range",
                  kBase + "subspace: {ridge: 0}\n",
                  {},
                  "job.yaml:6:19: subspace.ridge must be a number above 0, not \"0\""},
        ErrorCase{"not_finite",
                  kBase + "subspace: {ridge: inf}\n",
                  {},
                  "job.yaml:6:19: subspace.ridge must be a number above 0, not \"inf\""},
        ErrorCase{"bad_choice",
                  kBase + "subspace: {rule: gvep}\n",
                  {},
                  "job.yaml:6:18: subspace.rule must be one of gevp, cpca, retain_complement, "
                  "forget_complement, forget_pca, random, not \"gvep\""},
        ErrorCase{
            "bad_choice_with_suggestion",
            kBase + "subspace: {projector: obliqe}\n",
            {},
            "job.yaml:6:23: subspace.projector must be one of oblique, orthogonal, not \"obliqe\"; "
            "did you mean \"oblique\"?"},
        ErrorCase{"not_a_flag",
                  kBase + "project: yes\n",
                  {},
                  "job.yaml:6:10: project must be one of true, false, not \"yes\""},
        ErrorCase{
            "not_ascending",
            kBase + "relearn: {steps: [2, 2]}\n",
            {},
            "job.yaml:6:18: relearn.steps must be a list of ascending integers above 0, not a "
            "list"},
        ErrorCase{
            "unknown_preset",
            kBase + "preset: reliabel\n",
            {},
            "job.yaml:6:9: preset must be one of reliable, fast, paper, not \"reliabel\"; did "
            "you mean \"reliable\"?"},
        ErrorCase{"auto_or_integer",
                  kBase + "parallel: {tensor: many}\n",
                  {},
                  "job.yaml:6:20: parallel.tensor must be auto or an integer from 1 to 1000000, "
                  "not \"many\""},
        ErrorCase{
            "bad_module",
            kBase + "sites:\n  modules: [o_proj.input, down_porj.input]\n",
            {},
            "job.yaml:7:12: sites.modules must be a list of qkv.input, o_proj.input, "
            "gate_up.input, "
            "down_proj.input, o_proj.output, down_proj.output, stream.output, not a list; did you "
            "mean \"down_proj.input\"?"},
        ErrorCase{
            "bad_range",
            kBase + "sites: {layers: 5-2}\n",
            {},
            "job.yaml:6:17: sites.layers must be all, a layer, a range such as 4-11, or a list of "
            "layers and ranges, not \"5-2\""},
        ErrorCase{"value_for_section",
                  kBase + "subspace: gevp\n",
                  {},
                  "job.yaml:6:11: subspace must be a section with the keys " + kSubspace +
                      ", not \"gevp\""},
        ErrorCase{
            "nothing_for_value",
            kBase + "seed:\n",
            {},
            "job.yaml:6:1: seed must be an integer from 0 to 4611686018427387904, not nothing"},
        ErrorCase{"list_for_path",
                  kBase + "work: [a]\n",
                  {},
                  "job.yaml:6:7: work must be a path, not a list"},
        ErrorCase{
            "reserved_set",
            kBase + "  evaluate: {retain: x}\n",
            {},
            "job.yaml:6:22: data.evaluate.retain must be a path (names: letters, digits and _, "
            "not forget, retain or earlier_…), not \"x\""},
        ErrorCase{
            "empty_file",
            "",
            {},
            "job.yaml:1:1: the job must be a section with the keys " + kTop + ", not nothing"},
        ErrorCase{"list_of_keys",
                  "- model\n",
                  {},
                  "job.yaml:1:1: the job must be a section with the keys " + kTop + ", not a list"},
        ErrorCase{"no_yaml",
                  "model: [a\noutput: b\n",
                  {},
                  "job.yaml:2:7: not valid YAML (end of sequence flow not found)"},
        ErrorCase{"override_unknown",
                  kBase,
                  {"subspace.dim=3"},
                  "--set subspace.dim: unknown key \"subspace.dim\" (allowed in subspace: " +
                      kSubspace + ")"},
        ErrorCase{"override_value",
                  kBase,
                  {"subspace.ridge=-1"},
                  "--set subspace.ridge: subspace.ridge must be a number above 0, not \"-1\""},
        ErrorCase{"override_form",
                  kBase,
                  {"seed"},
                  "--set seed: not of the form key.sub=value; write for example --set "
                  "subspace.dimension=16"},
        ErrorCase{"output_is_model",
                  "model: m\noutput: m\ndata: {forget: f, retain: r}\n",
                  {},
                  "job.yaml: output " + std::filesystem::absolute("m").string() + " and model " +
                      std::filesystem::absolute("m").string() +
                      " overlap; the base checkpoint is never written to, choose another output"},
        ErrorCase{"control_is_output",
                  kBase + "evaluate: {control: out}\n",
                  {},
                  "job.yaml: evaluate.control " + std::filesystem::absolute("out").string() +
                      " overlaps with the output or the work directory; give a checkpoint that "
                      "never saw the forget set"},
        ErrorCase{
            "unknown_holdout",
            kBase + "  evaluate: {unseen: u, world: w}\nevaluate: {holdout: unsen}\n",
            {},
            "job.yaml: evaluate.holdout \"unsen\" is not a set of data.evaluate; did you mean "
            "\"unseen\"? (sets there: unseen, world)"},
        ErrorCase{
            "forget_is_no_holdout",
            kBase + "evaluate: {holdout: forget}\n",
            {},
            "job.yaml: evaluate.holdout \"forget\" is not a set of data.evaluate (sets there: "
            "none)"},
        ErrorCase{"work_in_output",
                  kBase + "work: out/w\n",
                  {},
                  "job.yaml: work " + std::filesystem::absolute("out/w").string() +
                      " overlaps with the model or the output; choose another directory"}),
    [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mrp::jobs
