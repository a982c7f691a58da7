// Merges the models of edit_golden.py; `edit_golden.py FOLDER check` compares them in transformers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "dist/agree.hpp"
#include "shard/edit/merge.hpp"
#include "shard/edit_case.hpp"

namespace mrp::shard {
namespace {

namespace fs = std::filesystem;

struct GoldenCase {
  std::string model, sites;
  std::vector<std::string> names;
  bool deltas = false;  ///< every tensor has a trained change
};

const std::vector<std::string> kInputs = {"layers.0.qkv.input", "layers.1.gate_up.input",
                                          "layers.1.o_proj.input", "layers.2.down_proj.input"};
const std::vector<std::string> kOutputs = {"layers.0.o_proj.output", "layers.1.down_proj.output",
                                           "layers.2.down_proj.output"};
const std::vector<std::string> kBoth = {"layers.1.down_proj.input", "layers.1.down_proj.output"};
const std::vector<std::string> kStream = {"layers.1.stream.output"};

class MergeGoldenTest : public testing::TestWithParam<GoldenCase> {};

TEST_P(MergeGoldenTest, MergesForTransformers) {
  const GoldenCase& c = GetParam();
  const dist::Communicator comm = dist::Communicator::world();
  const fs::path folder = fs::path(MRP_TEST_DATA) / "edit" / c.model;
  const fs::path output = folder / ("ranks_" + std::to_string(comm.size())) / c.sites;
  const io::Checkpoint checkpoint(folder / "model");
  const io::ModelConfig config = io::ModelConfig::read(folder / "model");
  std::mt19937_64 random(5);
  io::SubspaceFile subspaces;
  for (const std::string& site : c.names) {
    const std::int64_t width = Site::parse(site).width(config);
    subspaces.sites[site] = test::random_subspace(site, width, 3, true, random);
  }
  std::optional<io::DeltaReader> deltas;
  if (c.deltas) {
    const auto changes = test::random_deltas(checkpoint, checkpoint.names(), 0.03);
    dist::agree(comm, [&] { fs::create_directories(output.parent_path()); });
    test::write_deltas(output.string() + ".deltas.h5", checkpoint, changes, comm);
    deltas.emplace(output.string() + ".deltas.h5");
  }
  const io::DeltaReader* reader = deltas ? &*deltas : nullptr;
  const EditPlan plan = make_edit_plan(checkpoint, config, subspaces, reader);
  dist::Timers timers;
  const auto records = merge(checkpoint, plan, subspaces, reader, {}, output, comm, timers);
  EXPECT_EQ(records.size(), checkpoint.names().size());
  dist::agree(comm, [&] {
    if (comm.is_root()) subspaces.write(output.string() + ".h5");
  });
}

INSTANTIATE_TEST_SUITE_P(
    Models, MergeGoldenTest,
    testing::Values(
        GoldenCase{"biased_f32", "inputs", kInputs}, GoldenCase{"biased_f32", "outputs", kOutputs},
        GoldenCase{"biased_f32", "both", kBoth}, GoldenCase{"biased_f32", "stream", kStream},
        GoldenCase{"tied_f32", "inputs", kInputs}, GoldenCase{"tied_f32", "outputs", kOutputs},
        GoldenCase{"biased_bf16", "inputs", kInputs},
        GoldenCase{"biased_bf16", "outputs", kOutputs}, GoldenCase{"biased_bf16", "both", kBoth},
        GoldenCase{"biased_bf16", "stream", kStream}, GoldenCase{"plain_f16", "inputs", kInputs},
        GoldenCase{"plain_f16", "outputs", kOutputs}, GoldenCase{"tied_f32", "changed", {}, true},
        GoldenCase{"biased_f32", "changed_both", kBoth, true},
        GoldenCase{"biased_f32", "changed_stream", kStream, true},
        GoldenCase{"biased_bf16", "changed", {}, true},
        GoldenCase{"biased_bf16", "changed_inputs", kInputs, true},
        GoldenCase{"plain_f16", "changed_outputs", kOutputs, true}),
    [](const auto& test) { return test.param.model + "_" + test.param.sites; });

}  // namespace
}  // namespace mrp::shard
