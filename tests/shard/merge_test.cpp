#include "shard/edit/merge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"
#include "shard/edit/merge_steps.hpp"
#include "shard/edit_case.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

namespace fs = std::filesystem;
using test::Matrix;
using testing::HasSubstr;

/// Sites of every kind: inputs, outputs with biases, one tensor (layer 1's o_proj) on both sides.
const std::vector<std::string> kSites = {"layers.0.qkv.input",     "layers.0.down_proj.output",
                                         "layers.1.o_proj.input",  "layers.1.o_proj.output",
                                         "layers.1.gate_up.input", "layers.2.down_proj.input"};

class MergeTest : public testing::Test {
 protected:
  /// Work of rank 0 that the others wait for.
  template <class Work>
  void on_root(Work&& work) {
    dist::agree(comm_, [&] {
      if (comm_.is_root()) work();
    });
  }

  fs::path make(const std::string& name, const test::CheckpointOptions& options) {
    const fs::path directory = folder_.path() / name;
    on_root([&] { test::write_checkpoint(directory, options); });
    return directory;
  }

  static io::SubspaceFile subspaces(const std::vector<std::string>& sites, std::int64_t k = 3) {
    std::mt19937_64 random(2);
    io::SubspaceFile file;
    for (const std::string& site : sites) {
      const std::int64_t width = Site::parse(site).width(test::tiny_config());
      file.sites[site] = test::random_subspace(site, width, k, true, random);
    }
    return file;
  }

  std::map<std::string, io::TensorRecord> merge_to(const fs::path& input, const fs::path& output,
                                                   const io::SubspaceFile& file,
                                                   const dist::Communicator& comm,
                                                   MergeOptions options = {}) {
    const io::Checkpoint checkpoint(input);
    const EditPlan plan = make_edit_plan(checkpoint, test::tiny_config(), file);
    dist::Timers timers;
    return merge(checkpoint, plan, file, nullptr, options, output, comm, timers);
  }

  bool anything_left(const fs::path& output) const {
    return fs::exists(output) || fs::exists(io::partial_path(output));
  }

  dist::Communicator comm_ = dist::Communicator::world();
  test::TempFolder folder_{comm_};
};

struct TypeCase {
  io::DType dtype;
  double tolerance;
};
class MergeTypesTest : public MergeTest, public testing::WithParamInterface<TypeCase> {};

TEST_P(MergeTypesTest, TensorsAreTheDenseProduct) {
  const fs::path input = make("in", {.dtype = GetParam().dtype});
  for (const bool stream : {false, true}) {
    const io::SubspaceFile file =
        subspaces(stream ? std::vector<std::string>{"layers.1.stream.output"} : kSites);
    const fs::path output = folder_.path() / (stream ? "stream" : "sites");
    const auto records = merge_to(input, output, file, comm_);
    const io::Checkpoint before(input), after(output);
    const EditPlan plan = make_edit_plan(before, test::tiny_config(), file);
    const auto expected = test::dense_merge(test::read_tensors(before), plan, file);
    for (const auto& [name, tensor] : test::read_tensors(after)) {
      EXPECT_LE(test::distance(tensor, expected.at(name)), GetParam().tolerance) << name;
      EXPECT_EQ(records.at(name).changed, before.read(name) != after.read(name)) << name;
    }
    EXPECT_EQ(records.size(), expected.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MergeTypesTest,
                         testing::Values(TypeCase{io::DType::f32, 1e-7},
                                         TypeCase{io::DType::bf16, 4e-3},
                                         TypeCase{io::DType::f16, 5e-4}));

TEST_F(MergeTest, BytesDoNotDependOnRanksOrBlocks) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces(kSites);
  merge_to(input, folder_.path() / "all", file, comm_);
  const std::map<std::string, std::string> expected = test::read_files(folder_.path() / "all");
  MergeOptions small;
  small.block_bytes = 2000;
  const auto small_records = merge_to(input, folder_.path() / "small", file, comm_, small);
  EXPECT_EQ(test::read_files(folder_.path() / "small"), expected);
  // one rank alone, in a directory of its own
  const dist::Communicator self = dist::Communicator::self();
  const fs::path alone = folder_.path() / ("alone" + std::to_string(comm_.rank()));
  const auto records = merge_to(input, alone, file, self, small);
  EXPECT_EQ(test::read_files(alone), expected);
  for (const auto& [name, record] : records) {
    EXPECT_EQ(record.sha256, small_records.at(name).sha256) << name;
    EXPECT_EQ(record.leak, small_records.at(name).leak) << name;
  }
}

TEST_F(MergeTest, WideMatricesAreCutIntoSlabsOfColumns) {
  io::ModelConfig config = test::tiny_config();
  config.intermediate_size = 4500;  // three slabs of at least 4 KiB a row
  const fs::path input = folder_.path() / "in";
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  on_root([&] {
    fs::create_directories(input);
    std::mt19937_64 random(3);
    const Matrix w = test::random_matrix(config.hidden_size, 4500, 0.1, random);
    const std::vector<std::byte> bytes = test::to_bytes(w, io::DType::bf16);
    io::write_safetensors(input / "model.safetensors",
                          {{name, io::DType::bf16, {config.hidden_size, 4500}, bytes}});
  });
  const io::Checkpoint checkpoint(input);
  const io::SubspaceFile file = subspaces({"layers.0.down_proj.output"});
  const EditPlan plan = make_edit_plan(checkpoint, config, file);
  dist::Timers timers;
  MergeOptions slabs;
  slabs.block_bytes = 1;
  merge(checkpoint, plan, file, nullptr, slabs, folder_.path() / "slabs", comm_, timers);
  merge(checkpoint, plan, file, nullptr, {}, folder_.path() / "whole", comm_, timers);
  EXPECT_EQ(test::read_files(folder_.path() / "slabs"), test::read_files(folder_.path() / "whole"));
  const auto expected = test::dense_merge(test::read_tensors(checkpoint), plan, file);
  const io::Checkpoint merged(folder_.path() / "slabs");
  EXPECT_LE(test::distance(test::read_tensors(merged).at(name), expected.at(name)), 4e-3);
}

TEST_F(MergeTest, EverythingElseIsByteIdentical) {
  for (const std::int64_t shards : {1, 3}) {
    const fs::path input = make("in" + std::to_string(shards), {.shards = shards});
    const fs::path output = folder_.path() / ("out" + std::to_string(shards));
    const io::SubspaceFile file = subspaces({"layers.1.o_proj.output"});
    MergeOptions options;
    options.fingerprint = "abc";
    merge_to(input, output, file, comm_, options);
    auto before = test::read_files(input), after = test::read_files(output);
    EXPECT_EQ(merged_fingerprint(output), "abc");
    EXPECT_EQ(merged_fingerprint(input), "");
    after.erase(kMarkName);
    const io::Checkpoint a(input), b(output);
    for (const std::string& name : a.names()) {
      const bool edited = name.starts_with("model.layers.1.self_attn.o_proj");
      EXPECT_EQ(a.read(name) == b.read(name), !edited) << name;
      const io::TensorInfo &x = a.info(name), &y = b.info(name);
      EXPECT_EQ(std::tie(x.dtype, x.shape, x.begin), std::tie(y.dtype, y.shape, y.begin)) << name;
      // What may differ is blanked; all the rest must be equal: headers, order, index, side files.
      const std::string shard = a.file_of(name).path().filename().string();
      if (edited) {
        for (auto* files : {&before, &after}) {
          (*files)[shard].replace(x.begin, x.bytes(), x.bytes(), '?');
        }
      }
    }
    EXPECT_EQ(before, after);
  }
}

TEST_F(MergeTest, RecordsHoldLeakAndHashOfTheWrittenBytes) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces({"layers.0.qkv.input", "layers.2.down_proj.output"}, 2);
  std::map<Rounding, double> worst;
  for (const Rounding rounding : {Rounding::nearest, Rounding::error_feedback}) {
    MergeOptions options;
    options.rounding = rounding;
    const fs::path output = folder_.path() / "out";  // the second replaces the first
    const auto records = merge_to(input, output, file, comm_, options);
    const io::Checkpoint before(input), after(output);
    for (const auto& [name, record] : records) {
      io::Sha256 hash;
      hash.update(after.read(name));
      EXPECT_EQ(record.sha256, hash.finish());
      if (!name.ends_with("bias")) worst[rounding] = std::max(worst[rounding], record.leak);
    }
    // ‖W′ A‖ / ‖W A‖ in the basis that weighs all directions alike: k = 2, orthonormalised by hand
    const std::string name = "model.layers.0.self_attn.q_proj.weight";
    const auto tensors_before = test::read_tensors(before), tensors = test::read_tensors(after);
    const FoldFactors factors = make_factors(file.sites.at("layers.0.qkv.input"), FoldSide::input);
    Matrix n(factors.width, factors.k);
    n.values = factors.n;
    const double expected = test::norm(test::multiply(tensors.at(name), n)) /
                            test::norm(test::multiply(tensors_before.at(name), n));
    EXPECT_NEAR(records.at(name).leak, expected, 1e-6);
  }
  EXPECT_LE(worst[Rounding::nearest], 3e-3);
  EXPECT_LE(worst[Rounding::error_feedback], 3e-4);
}

TEST_F(MergeTest, OtherBytesOnTheDiskAreFound) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces({"layers.1.o_proj.input"});
  const io::Checkpoint checkpoint(input);
  const EditPlan plan = make_edit_plan(checkpoint, test::tiny_config(), file);
  const MergeOptions options;
  for (const char* damaged : {"model.norm.weight", "model.layers.1.self_attn.o_proj.weight"}) {
    const fs::path copy = folder_.path() / damaged;
    on_root([&] { fs::copy(input, copy); });
    const MergeJob job{checkpoint, plan, file, nullptr, options, copy, comm_};
    const Written written = write_tensors(job);
    read_back(job, written);
    on_root([&] {
      std::fstream bytes(copy / checkpoint.file_of(damaged).path().filename(),
                         std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekg(static_cast<std::streamoff>(checkpoint.info(damaged).begin));
      const int byte = bytes.get();
      bytes.seekp(static_cast<std::streamoff>(checkpoint.info(damaged).begin));
      bytes.put(static_cast<char>(byte ^ 1));
    });
    EXPECT_THAT([&] { read_back(job, written); },
                testing::ThrowsMessage<dist::ResourceError>(
                    HasSubstr(std::string(damaged) + " read back differs")));
    comm_.barrier();
  }
}

TEST_F(MergeTest, AnEmptyPlanCopies) {
  const fs::path input = make("in", {});
  merge_to(input, folder_.path() / "out", {}, comm_);
  auto after = test::read_files(folder_.path() / "out");
  after.erase(kMarkName);
  EXPECT_EQ(after, test::read_files(input));
}

TEST_F(MergeTest, NonFiniteWeightsEndAllRanksAndLeaveNothing) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces(kSites);
  for (const std::string name :
       {"model.layers.2.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.o_proj.weight"}) {
    const fs::path copy = folder_.path() / name;
    on_root([&] {
      fs::copy(input, copy);
      const io::Checkpoint checkpoint(copy);
      const io::TensorInfo info = checkpoint.info(name);
      std::fstream stream(checkpoint.file_of(name).path(),
                          std::ios::in | std::ios::out | std::ios::binary);
      stream.seekp(static_cast<std::streamoff>(
          info.begin + static_cast<std::uint64_t>(2 * (21 * info.shape[1] + 5))));
      stream.write("\xc0\x7f", 2);  // NaN in row 21
    });
    EXPECT_THAT([&] { merge_to(copy, folder_.path() / "out", file, comm_); },
                testing::ThrowsMessage<dist::NumericalError>(
                    HasSubstr("tensor " + name + ", row 21: NaN or Inf")));
    comm_.barrier();
    EXPECT_FALSE(anything_left(folder_.path() / "out"));
  }
}

TEST_F(MergeTest, AFailureOfOneRankEndsAllAndLeavesNothing) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces(kSites);
  const io::Checkpoint checkpoint(input);
  const EditPlan plan = make_edit_plan(checkpoint, test::tiny_config(), file);
  io::SubspaceFile broken = file;
  // Only the last rank's copy of the job is of no use.
  for (auto& [site, subspace] : broken.sites) {
    if (comm_.rank() == comm_.size() - 1) {
      subspace.a.assign(subspace.a.size(), 0.0);
      subspace.b = subspace.a;
    }
  }
  dist::Timers timers;
  EXPECT_THROW(merge(checkpoint, plan, broken, nullptr, {}, folder_.path() / "out", comm_, timers),
               dist::NumericalError);
  comm_.barrier();
  EXPECT_FALSE(anything_left(folder_.path() / "out"));
}

TEST_F(MergeTest, ReplacesOnlyWhatIsOurs) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces({"layers.0.qkv.input"});
  const fs::path output = folder_.path() / "out";
  on_root([&] {
    fs::create_directories(output);
    io::write_text(output / "thesis.txt", "years of work");
  });
  EXPECT_THAT([&] { merge_to(input, output, file, comm_); },
              testing::ThrowsMessage<dist::InputError>(HasSubstr("was not written by mrp")));
  comm_.barrier();
  EXPECT_EQ(test::read_files(output).size(), 1u);
  EXPECT_FALSE(fs::exists(io::partial_path(output)));

  comm_.barrier();
  on_root([&] { fs::remove(output / "thesis.txt"); });
  merge_to(input, output, file, comm_);  // empty: may be used
  const auto first = test::read_files(output);
  comm_.barrier();
  on_root([&] { io::write_text(output / "extra", "of an older run"); });
  merge_to(input, output, file, comm_);  // ours: may be replaced, as a whole
  EXPECT_EQ(test::read_files(output), first);
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_.path())) ++entries;
  EXPECT_EQ(entries, 2u);
}

TEST_F(MergeTest, NeverReplacesItsInput) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces({"layers.0.qkv.input"});
  const fs::path first = folder_.path() / "first";
  merge_to(input, first, file, comm_);
  // `first` bears our mark, but is now the input itself.
  EXPECT_THROW(merge_to(first, first / ".", file, comm_), dist::UsageError);
  EXPECT_THROW(merge_to(first, folder_.path(), file, comm_), dist::UsageError);
  // A work of mrp as input of another: the mark is new, not copied.
  MergeOptions options;
  options.fingerprint = "second";
  merge_to(first, folder_.path() / "second", file, comm_, options);
  EXPECT_EQ(merged_fingerprint(folder_.path() / "second"), "second");
}

TEST_F(MergeTest, TakesOverThePartialDirectoryOfAKilledRunOnly) {
  const fs::path input = make("in", {});
  const io::SubspaceFile file = subspaces({"layers.0.qkv.input"});
  const fs::path output = folder_.path() / "out", partial = io::partial_path(output);
  on_root([&] {
    fs::create_directories(partial);
    io::write_text(partial / "somebody's", "x");
  });
  EXPECT_THROW(merge_to(input, output, file, comm_), dist::InputError);
  comm_.barrier();
  EXPECT_TRUE(fs::exists(partial / "somebody's"));
  comm_.barrier();
  on_root([&] {
    fs::remove_all(partial);
    OutputDirectory(output).create(input, 1, "killed");
    io::write_text(partial / "half", "x");
  });
  merge_to(input, output, file, comm_);
  EXPECT_FALSE(fs::exists(partial));
  EXPECT_FALSE(fs::exists(output / "half"));
}

TEST_F(MergeTest, ChecksTheDiskBeforeWriting) {
  const fs::path input = make("in", {});
  on_root([&] {
    const OutputDirectory directory(folder_.path() / "deep" / "out/");
    EXPECT_EQ(directory.path().filename(), "out");
    EXPECT_THROW(directory.create(input, std::uint64_t{1} << 60, "x"), dist::ResourceError);
    EXPECT_FALSE(fs::exists(folder_.path() / "deep"));
  });
}

}  // namespace
}  // namespace mrp::shard
