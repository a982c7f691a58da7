// Trained changes in the merge: against dense arithmetic, alone and under folds of every kind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/file.hpp"
#include "shard/edit/merge.hpp"
#include "shard/edit_case.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

namespace fs = std::filesystem;
using test::Matrix;
using testing::HasSubstr;
using Deltas = std::map<std::string, Matrix>;

const std::string kAlone = "model.layers.0.self_attn.q_proj.weight";
const std::string kAloneVector = "model.layers.1.input_layernorm.weight";
const std::string kInput = "model.layers.2.mlp.down_proj.weight";
const std::string kOutput = "model.layers.0.mlp.down_proj.weight";
const std::string kOutputBias = "model.layers.0.mlp.down_proj.bias";
const std::string kBoth = "model.layers.1.self_attn.o_proj.weight";
const std::vector<std::string> kChanged = {
    kAlone, kAloneVector, kInput, kOutput, kOutputBias, kBoth, "model.embed_tokens.weight"};
/// layers.1.gate_up.input folds what has no change.
const std::vector<std::string> kSites = {"layers.2.down_proj.input", "layers.0.down_proj.output",
                                         "layers.1.o_proj.input", "layers.1.o_proj.output",
                                         "layers.1.gate_up.input"};

class MergeDeltaTest : public testing::Test {
 protected:
  io::Checkpoint make(const test::CheckpointOptions& options) {
    const fs::path directory = folder_.path() / ("in" + std::to_string(made_++));
    dist::agree(comm_, [&] {
      if (comm_.is_root()) test::write_checkpoint(directory, options);
    });
    return io::Checkpoint(directory);
  }

  io::DeltaReader store(const io::Checkpoint& checkpoint, const Deltas& deltas) {
    const fs::path path = folder_.path() / "deltas.h5";
    test::write_deltas(path, checkpoint, deltas, comm_);
    return io::DeltaReader(path);
  }

  static io::SubspaceFile subspaces(const std::vector<std::string>& sites) {
    std::mt19937_64 random(2);
    io::SubspaceFile file;
    for (const std::string& site : sites) {
      const std::int64_t width = Site::parse(site).width(test::tiny_config());
      file.sites[site] = test::random_subspace(site, width, 2, true, random);
    }
    return file;
  }

  std::map<std::string, io::TensorRecord> merge_to(
      const std::string& name, const io::Checkpoint& checkpoint, const io::SubspaceFile& file,
      const io::DeltaReader& deltas, const dist::Communicator& comm, MergeOptions options = {}) {
    const EditPlan plan = make_edit_plan(checkpoint, test::tiny_config(), file, &deltas);
    dist::Timers timers;
    return merge(checkpoint, plan, file, &deltas, options, folder_.path() / name, comm, timers);
  }

  dist::Communicator comm_ = dist::Communicator::world();
  test::TempFolder folder_{comm_};
  int made_ = 0;
};

struct TypeCase {
  io::DType dtype;
  Rounding rounding;
  double tolerance;
};
class MergeDeltaTypesTest : public MergeDeltaTest, public testing::WithParamInterface<TypeCase> {};

TEST_P(MergeDeltaTypesTest, TensorsAreTheChangedOnesProjected) {
  const io::Checkpoint before = make({.dtype = GetParam().dtype});
  const Deltas changes = test::random_deltas(before, kChanged, 0.05);
  const io::DeltaReader deltas = store(before, changes);
  for (const bool stream : {false, true}) {
    const io::SubspaceFile file =
        subspaces(stream ? std::vector<std::string>{"layers.1.stream.output"} : kSites);
    MergeOptions options;
    options.rounding = GetParam().rounding;
    const auto records = merge_to("out", before, file, deltas, comm_, options);
    const io::Checkpoint after(folder_.path() / "out");
    const EditPlan plan = make_edit_plan(before, test::tiny_config(), file, &deltas);
    const auto expected = test::dense_merge(test::read_tensors(before), plan, file, changes);
    for (const auto& [name, tensor] : test::read_tensors(after)) {
      EXPECT_LE(test::distance(tensor, expected.at(name)), GetParam().tolerance) << name;
      EXPECT_EQ(records.at(name).changed, before.read(name) != after.read(name)) << name;
    }
    for (const std::string& name : kChanged) EXPECT_TRUE(records.at(name).changed) << name;
    EXPECT_EQ(records.at(kAlone).leak, 0.0);
    EXPECT_EQ(records.at(kAloneVector).leak, 0.0);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MergeDeltaTypesTest,
                         testing::Values(TypeCase{io::DType::f32, Rounding::error_feedback, 1e-7},
                                         TypeCase{io::DType::bf16, Rounding::error_feedback, 4e-3},
                                         TypeCase{io::DType::bf16, Rounding::nearest, 3e-3},
                                         TypeCase{io::DType::f16, Rounding::error_feedback, 5e-4}));

TEST_F(MergeDeltaTest, BytesDoNotDependOnRanksOrBlocks) {
  const io::Checkpoint checkpoint = make({});
  const io::DeltaReader deltas =
      store(checkpoint, test::random_deltas(checkpoint, kChanged, 0.003));
  const io::SubspaceFile file = subspaces(kSites);
  const auto records = merge_to("all", checkpoint, file, deltas, comm_);
  const auto expected = test::read_files(folder_.path() / "all");
  MergeOptions small;
  small.block_bytes = 2000;
  // one rank alone, in a directory of its own
  const std::string alone = "alone" + std::to_string(comm_.rank());
  const auto self = dist::Communicator::self();
  const auto small_records = merge_to(alone, checkpoint, file, deltas, self, small);
  EXPECT_EQ(test::read_files(folder_.path() / alone), expected);
  for (const auto& [name, record] : records) {
    EXPECT_EQ(record.sha256, small_records.at(name).sha256) << name;
    EXPECT_EQ(record.leak, small_records.at(name).leak) << name;
  }
}

TEST_F(MergeDeltaTest, NothingButTheChangedTensorsChanges) {
  const io::Checkpoint before = make({.tied = true});
  // Embeddings that are tied to the head: one tensor, one change.
  const std::vector<std::string> changed = {kAlone, "model.embed_tokens.weight"};
  const io::DeltaReader deltas = store(before, test::random_deltas(before, changed, 0.05));
  const auto records = merge_to("out", before, {}, deltas, comm_);
  const io::Checkpoint after(folder_.path() / "out");
  for (const std::string& name : before.names()) {
    const bool expected = std::find(changed.begin(), changed.end(), name) != changed.end();
    EXPECT_EQ(before.read(name) != after.read(name), expected) << name;
    EXPECT_EQ(records.at(name).changed, expected) << name;
  }
}

TEST_F(MergeDeltaTest, LeakIsThatOfTheChangedTensorAndKeepsItsBounds) {
  const io::Checkpoint before = make({});
  // Changes ten times as large as the weights: a leak relative to those would be another number.
  const Deltas changes = test::random_deltas(before, {kInput, kOutput}, 1.0);
  const io::DeltaReader deltas = store(before, changes);
  const io::SubspaceFile file =
      subspaces({"layers.2.down_proj.input", "layers.0.down_proj.output"});
  for (const Rounding rounding : {Rounding::nearest, Rounding::error_feedback}) {
    MergeOptions options;
    options.rounding = rounding;
    const auto records = merge_to("out", before, file, deltas, comm_, options);
    const auto tensors = test::read_tensors(io::Checkpoint(folder_.path() / "out"));
    const auto changed = test::dense_merge(test::read_tensors(before), {}, {}, changes);
    const FoldFactors factors =
        make_factors(file.sites.at("layers.2.down_proj.input"), FoldSide::input);
    Matrix n(factors.width, factors.k);
    n.values = factors.n;
    const double expected = test::norm(test::multiply(tensors.at(kInput), n)) /
                            test::norm(test::multiply(changed.at(kInput), n));
    EXPECT_NEAR(records.at(kInput).leak, expected, 1e-6);
    const double bound = rounding == Rounding::nearest ? 3e-3 : 3e-4;
    EXPECT_LE(records.at(kInput).leak, bound);
    EXPECT_LE(records.at(kOutput).leak, bound);
  }
}

/// An eighth of the spacing at each weight, up or down by chance.
Matrix eighths(const Matrix& w) {
  std::mt19937_64 random(4);
  Matrix delta(w.rows, w.columns);
  for (std::size_t i = 0; i < w.values.size(); ++i) {
    const double spacing = std::ldexp(1.0, std::ilogb(w.values[i]) - 7);
    delta.values[i] = (random() % 2 == 0 ? 0.125 : -0.125) * spacing;
  }
  return delta;
}

/// ⟨a − b, direction⟩ / ‖direction‖²: 1 if a − b is `direction` and whatever is orthogonal to it.
double share_along(const Matrix& a, const Matrix& b, const Matrix& direction) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    sum += (a.values[i] - b.values[i]) * direction.values[i];
  }
  return sum / std::pow(test::norm(direction), 2);
}

/// Two wide matrices, of which kInput is folded and kOutput is not.
class SmallChangesTest : public MergeDeltaTest {
 protected:
  SmallChangesTest() {
    config_.intermediate_size = 2048;
    std::mt19937_64 random(3);
    const std::string site = "layers.2.down_proj.input";
    file_.sites[site] = test::random_subspace(site, 2048, 4, true, random);
    const auto first = test::to_bytes(test::random_matrix(40, 2048, 0.1, random), io::DType::bf16);
    const auto second = test::to_bytes(test::random_matrix(40, 2048, 0.1, random), io::DType::bf16);
    dist::agree(comm_, [&] {
      if (!comm_.is_root()) return;
      fs::create_directories(folder_.path() / "in");
      io::write_safetensors(folder_.path() / "in" / "model.safetensors",
                            {{kInput, io::DType::bf16, {40, 2048}, first},
                             {kOutput, io::DType::bf16, {40, 2048}, second}});
    });
  }

  /// How much of an eighth of the spacing arrives, and the leak.
  struct Arrived {
    double folded, alone, leak;
  };
  Arrived merge_eighths(const io::Checkpoint& checkpoint, Rounding rounding) {
    const auto before = test::read_tensors(checkpoint);
    Deltas changes;
    for (const auto& [name, w] : before) changes.emplace(name, eighths(w));
    const io::DeltaReader deltas = store(checkpoint, changes);
    const EditPlan plan = make_edit_plan(checkpoint, config_, file_, &deltas);
    const auto records = merge_wide(checkpoint, &deltas, rounding, "out");
    const auto after = test::read_tensors(io::Checkpoint(folder_.path() / "out"));
    const auto unchanged = test::dense_merge(before, plan, file_);
    const auto share = [&](const std::string& name) {
      return share_along(after.at(name), unchanged.at(name), changes.at(name));
    };
    return {share(kInput), share(kOutput), records.at(kInput).leak};
  }

  std::map<std::string, io::TensorRecord> merge_wide(const io::Checkpoint& checkpoint,
                                                     const io::DeltaReader* deltas,
                                                     Rounding rounding, const std::string& name) {
    const EditPlan plan = make_edit_plan(checkpoint, config_, file_, deltas);
    MergeOptions options;
    options.rounding = rounding;
    dist::Timers timers;
    return merge(checkpoint, plan, file_, deltas, options, folder_.path() / name, comm_, timers);
  }

  io::ModelConfig config_ = test::tiny_config();
  io::SubspaceFile file_;
};

TEST_F(SmallChangesTest, SurviveInTheMean) {
  const io::Checkpoint checkpoint(folder_.path() / "in");
  EXPECT_EQ(merge_eighths(checkpoint, Rounding::nearest).alone, 0.0);
  const Arrived arrived = merge_eighths(checkpoint, Rounding::error_feedback);
  EXPECT_NEAR(arrived.alone, 1, 0.06);
  EXPECT_NEAR(arrived.folded, 1, 0.06);
  EXPECT_LE(arrived.leak, 5e-5);
}

TEST_F(SmallChangesTest, SurviveWhereTheFoldHasNothingLeftToRemove) {
  const io::Checkpoint first(folder_.path() / "in");
  merge_wide(first, nullptr, Rounding::error_feedback, "once");
  const io::Checkpoint once(folder_.path() / "once");
  EXPECT_NEAR(merge_eighths(once, Rounding::nearest).folded, 0, 1e-3);
  const Arrived arrived = merge_eighths(once, Rounding::error_feedback);
  EXPECT_NEAR(arrived.folded, 1, 0.15);
  EXPECT_LE(arrived.leak, 2e-3);  // relative to the change alone
}

TEST_F(MergeDeltaTest, ChangesThatAreNotFiniteEndAllRanksAndLeaveNothing) {
  const io::Checkpoint checkpoint = make({});
  Deltas changes = test::random_deltas(checkpoint, {kAlone, kBoth}, 0.05);
  changes.at(kBoth).at(21, 5) = std::numeric_limits<double>::quiet_NaN();
  const io::DeltaReader deltas = store(checkpoint, changes);
  const auto attempt = [&] { merge_to("out", checkpoint, subspaces(kSites), deltas, comm_); };
  EXPECT_THAT(attempt, testing::ThrowsMessage<dist::InputError>(
                           HasSubstr("the change of tensor " + kBoth + " has NaN or Inf")));
  comm_.barrier();
  EXPECT_FALSE(fs::exists(folder_.path() / "out"));
  EXPECT_FALSE(fs::exists(io::partial_path(folder_.path() / "out")));
}

TEST_F(MergeDeltaTest, ResultsThatTheTypeCannotHoldAreNamed) {
  const io::Checkpoint checkpoint = make({.dtype = io::DType::f16});
  Deltas changes = test::random_deltas(checkpoint, {kAlone}, 0.05);
  changes.at(kAlone).at(3, 5) = 70000;
  const io::DeltaReader deltas = store(checkpoint, changes);
  EXPECT_THAT([&] { merge_to("out", checkpoint, {}, deltas, comm_); },
              testing::ThrowsMessage<dist::NumericalError>(
                  testing::AllOf(HasSubstr("tensor " + kAlone), HasSubstr("larger than F16"),
                                 HasSubstr("lower learning rate"))));
}

TEST_F(MergeDeltaTest, ThePlanRefusesWhatDoesNotFitTheCheckpoint) {
  const io::Checkpoint checkpoint = make({}), unbiased = make({.biases = false});
  const auto refusal = [&](const io::Checkpoint& other, const io::DeltaReader& deltas) {
    try {
      make_edit_plan(other, test::tiny_config(), {}, &deltas);
    } catch (const dist::InputError& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_THAT(
      refusal(unbiased, store(checkpoint, test::random_deltas(checkpoint, {kOutputBias}, 1))),
      HasSubstr("no tensor " + kOutputBias));
  const fs::path path = folder_.path() / "other.h5";
  io::DeltaWriter writer(path, {{{kAlone, {48, 41}}}, ""}, "", comm_);
  writer.finish();
  EXPECT_THAT(
      refusal(checkpoint, io::DeltaReader(path)),
      HasSubstr("tensor " + kAlone + " has shape [48, 40], but its trained change [48, 41]"));
  const io::DeltaReader deltas =
      store(checkpoint, test::random_deltas(checkpoint, {kAlone, kBoth}, 1));
  const EditPlan plan = make_edit_plan(checkpoint, test::tiny_config(),
                                       subspaces({"layers.1.o_proj.output"}), &deltas);
  std::vector<std::string> lines;
  for (const TensorEdit& edit : plan.edits) {
    lines.push_back(edit.tensor + (edit.delta ? " delta" : "") +
                    (by_columns(edit) ? " columns" : ""));
  }
  EXPECT_THAT(lines, testing::ElementsAre(kAlone + " delta", "model.layers.1.self_attn.o_proj.bias",
                                          kBoth + " delta columns"));
}

}  // namespace
}  // namespace mrp::shard
