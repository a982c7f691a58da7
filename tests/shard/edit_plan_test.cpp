#include "shard/edit/edit_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "dist/communicator.hpp"
#include "dist/error.hpp"
#include "io/file.hpp"
#include "shard/edit_case.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EditPlanTest : public testing::Test {
 protected:
  io::Checkpoint make(const test::CheckpointOptions& options) {
    const auto directory = folder_.path() / std::to_string(made_++);
    dist::agree(comm_, [&] {
      if (comm_.is_root()) test::write_checkpoint(directory, options);
    });
    return io::Checkpoint(directory);
  }

  /// "tensor:side site" of every fold; sites are given as (name, k).
  std::vector<std::string> plan(const io::Checkpoint& checkpoint,
                                const std::vector<std::pair<std::string, std::int64_t>>& sites,
                                const io::ModelConfig& config = test::tiny_config()) {
    std::mt19937_64 random(1);
    io::SubspaceFile subspaces;
    for (const auto& [site, k] : sites) {
      subspaces.sites[site] = test::random_subspace(
          site, Site::parse(site).width(test::tiny_config()), k, true, random);
    }
    const EditPlan made = make_edit_plan(checkpoint, config, subspaces);
    notes_ = made.notes;
    std::vector<std::string> lines;
    for (const TensorEdit& edit : made.edits) {
      for (const Fold& fold : edit.folds) {
        constexpr const char* kSides[] = {"input", "output", "rows", "bias"};
        lines.push_back(edit.tensor + ":" + kSides[static_cast<int>(fold.side)] + " " + fold.site);
      }
    }
    return lines;
  }

  template <class Error>
  std::string error_of(const io::Checkpoint& checkpoint,
                       const std::vector<std::pair<std::string, std::int64_t>>& sites,
                       const io::ModelConfig& config = test::tiny_config()) {
    try {
      plan(checkpoint, sites, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error of the expected class";
  }

  dist::Communicator comm_ = dist::Communicator::world();
  test::TempFolder folder_{comm_};
  int made_ = 0;
  std::vector<std::string> notes_;
};

TEST_F(EditPlanTest, InputSitesEditEveryReader) {
  const io::Checkpoint checkpoint = make({});
  EXPECT_THAT(plan(checkpoint, {{"layers.1.qkv.input", 3},
                                {"layers.0.gate_up.input", 2},
                                {"layers.2.o_proj.input", 2},
                                {"layers.2.down_proj.input", 4}}),
              ElementsAre("model.layers.0.mlp.gate_proj.weight:input layers.0.gate_up.input",
                          "model.layers.0.mlp.up_proj.weight:input layers.0.gate_up.input",
                          "model.layers.1.self_attn.k_proj.weight:input layers.1.qkv.input",
                          "model.layers.1.self_attn.q_proj.weight:input layers.1.qkv.input",
                          "model.layers.1.self_attn.v_proj.weight:input layers.1.qkv.input",
                          "model.layers.2.mlp.down_proj.weight:input layers.2.down_proj.input",
                          "model.layers.2.self_attn.o_proj.weight:input layers.2.o_proj.input"));
  EXPECT_THAT(notes_, IsEmpty());
}

TEST_F(EditPlanTest, OutputSitesEditWeightAndBias) {
  EXPECT_THAT(plan(make({}), {{"layers.1.down_proj.output", 3}}),
              ElementsAre("model.layers.1.mlp.down_proj.bias:bias layers.1.down_proj.output",
                          "model.layers.1.mlp.down_proj.weight:output layers.1.down_proj.output"));
  EXPECT_THAT(plan(make({.biases = false}), {{"layers.1.o_proj.output", 3}}),
              ElementsAre("model.layers.1.self_attn.o_proj.weight:output layers.1.o_proj.output"));
}

TEST_F(EditPlanTest, StreamEditsEveryWriterAndSaysSo) {
  const auto lines = plan(make({.biases = false}), {{"layers.1.stream.output", 3}});
  EXPECT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines.front(), "model.embed_tokens.weight:rows layers.1.stream.output");
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("at every depth")));
  EXPECT_EQ(plan(make({}), {{"layers.1.stream.output", 3}}).size(), 13u);
}

TEST_F(EditPlanTest, BothSidesOfOneTensorAreAllowedAndNoted) {
  const auto lines =
      plan(make({.biases = false}), {{"layers.0.o_proj.input", 3}, {"layers.0.o_proj.output", 2}});
  EXPECT_EQ(lines.size(), 2u);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("1 tensors are folded on both sides")));
}

TEST_F(EditPlanTest, EmptySubspacesEditNothing) {
  EXPECT_THAT(plan(make({}), {{"layers.0.o_proj.input", 0}, {"layers.0.stream.output", 0}}),
              IsEmpty());
}

TEST_F(EditPlanTest, RefusesTwoProjectorsOfOneSide) {
  const io::Checkpoint checkpoint = make({});
  EXPECT_THAT(error_of<dist::UsageError>(
                  checkpoint, {{"layers.0.stream.output", 1}, {"layers.2.stream.output", 1}}),
              HasSubstr("both project the same side of model.embed_tokens.weight"));
  EXPECT_THAT(error_of<dist::UsageError>(
                  checkpoint, {{"layers.0.down_proj.output", 1}, {"layers.2.stream.output", 1}}),
              HasSubstr("both project the same side"));
}

TEST_F(EditPlanTest, RefusesAStreamFoldOfTiedEmbeddings) {
  io::ModelConfig tied = test::tiny_config();
  tied.tie_word_embeddings = true;
  EXPECT_THAT(error_of<dist::UsageError>(make({}), {{"layers.0.stream.output", 1}}, tied),
              HasSubstr("tied"));
  EXPECT_THAT(error_of<dist::UsageError>(make({.tied = true}), {{"layers.0.stream.output", 1}}),
              HasSubstr("tied"));
}

TEST_F(EditPlanTest, RefusesWhatDoesNotFitTheCheckpoint) {
  const io::Checkpoint checkpoint = make({});
  io::ModelConfig other = test::tiny_config();
  other.layers = 1;
  EXPECT_THAT(error_of<dist::InputError>(checkpoint, {{"layers.1.qkv.input", 1}}, other),
              HasSubstr("does not belong to this model"));
  other = test::tiny_config();
  other.layers = 9;
  EXPECT_THAT(error_of<dist::InputError>(checkpoint, {{"layers.5.qkv.input", 1}}, other),
              HasSubstr("no tensor model.layers.5.self_attn.q_proj.weight"));
  std::mt19937_64 random(1);
  io::SubspaceFile wide;
  wide.sites["layers.0.qkv.input"] =
      test::random_subspace("layers.0.qkv.input", 64, 2, true, random);
  other = test::tiny_config();
  other.hidden_size = 64;
  EXPECT_THAT([&] { make_edit_plan(checkpoint, other, wide); },
              testing::ThrowsMessage<dist::InputError>(HasSubstr("has shape [48, 40]")));
}

TEST_F(EditPlanTest, RefusesTypesThatCannotBeEdited) {
  const auto directory = folder_.path() / "f64";
  dist::agree(comm_, [&] {
    if (!comm_.is_root()) return;
    std::filesystem::create_directories(directory);
    const io::ModelConfig config = test::tiny_config();
    std::vector<std::byte> bytes(static_cast<std::size_t>(config.hidden_size * 48 * 8));
    io::write_safetensors(directory / "model.safetensors",
                          {{"model.layers.0.self_attn.o_proj.weight",
                            io::DType::f64,
                            {config.hidden_size, 48},
                            bytes}});
  });
  EXPECT_THAT(error_of<dist::InputError>(io::Checkpoint(directory), {{"layers.0.o_proj.input", 1}}),
              HasSubstr("is F64"));
}

}  // namespace
}  // namespace mrp::shard
