// states.h5 against the hooks of transformers: contents, rows, order; whatever the layout.
#include "shard/capture.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include "dist/error.hpp"
#include "io/state_store.hpp"
#include "shard/golden_case.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

using test::GoldenCase;

const std::vector<std::string> kModules = {"qkv.input",     "o_proj.input",    "o_proj.output",
                                           "gate_up.input", "down_proj.input", "down_proj.output",
                                           "stream.output"};

/// The items of the case as the set "forget", and its first three as "retain".
io::TokenDataset dataset(const GoldenCase& golden) {
  io::TokenDataset tokens;
  tokens.vocab_size = golden.config().vocab_size;
  io::TokenSet set = golden.token_set();
  tokens.sets["forget"] = set;
  set.name = "retain";
  set.items.offsets.resize(4);
  const auto end = static_cast<std::size_t>(set.items.offsets.back());
  set.items.token_ids.resize(end);
  set.items.target_mask.resize(end);
  set.ids.resize(3);
  tokens.sets["retain"] = set;
  return tokens;
}

struct CaptureCase {
  const char* name;
  torch::ScalarType dtype;
  double tolerance;
};

class CaptureTest : public testing::TestWithParam<CaptureCase> {
 protected:
  std::filesystem::path run(const dist::ParallelLayout& layout, const CaptureOptions& options,
                            Residency residency = Residency::full) {
    CausalLM model(golden_.checkpoint(), golden_.config(), layout,
                   {.dtype = GetParam().dtype, .head = false, .residency = residency});
    const auto path = folder_.path() / ("states-" + std::to_string(layout.tensor().size()) + ".h5");
    dist::Timers timers;
    capture(model, layout, tokens_, options, path, timers);
    timers.reduce(world_);  // throws unless all ranks met the same scopes
    return path;
  }

  std::string bytes(const dist::ParallelLayout& layout, const CaptureOptions& options,
                    Residency residency) {
    std::ifstream stream(run(layout, options, residency), std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    world_.barrier();  // nobody rewrites what another still reads
    return content;
  }

  void expect_rows(const io::StateReader& reader, const std::string& set, Positions which) {
    const io::Sequences& items = tokens_.sets.at(set).items;
    std::vector<std::array<std::int64_t, 2>> wanted;
    for (std::int64_t i = 0; i < items.count(); ++i) {
      for (std::int64_t t = 1; t < items.length(i); ++t) {
        const bool target = items.mask(i)[static_cast<std::size_t>(t)] != 0;
        if (target || which == Positions::all) wanted.push_back({i, t});
      }
    }
    std::ranges::sort(wanted, {}, [&](const auto& row) {
      return std::tuple(items.length(row[0]), row[0], row[1]);
    });
    EXPECT_EQ(reader.positions(set), wanted);
  }

  void expect_states(const io::StateReader& reader, const std::string& set) {
    const auto positions = reader.positions(set);
    std::vector<std::int64_t> flat;
    for (const auto& [sequence, position] : positions) {
      flat.push_back(tokens_.sets.at(set).items.offsets[static_cast<std::size_t>(sequence)] +
                     position);
    }
    for (const std::string& site : reader.sites()) {
      torch::Tensor states = torch::empty({reader.rows(set), reader.width(site)});
      reader.read(set, site, {0, reader.rows(set)}, {0, reader.width(site)},
                  {states.data_ptr<float>(), static_cast<std::size_t>(states.numel())});
      const torch::Tensor all = golden_.expected(site);
      const torch::Tensor expected = all.index_select(0, torch::tensor(flat, torch::kInt64));
      const double worst = (states - expected).abs().max().item<double>();
      EXPECT_LE(worst, GetParam().tolerance * all.abs().max().item<double>()) << set << " " << site;
    }
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
  GoldenCase golden_{GetParam().name};
  io::TokenDataset tokens_ = dataset(golden_);
};

TEST_P(CaptureTest, FileEqualsHooksOfTransformersOnEveryLayout) {
  for (const int size : test::tensor_sizes(world_.size())) {
    SCOPED_TRACE("tensor size " + std::to_string(size));
    const dist::ParallelLayout layout(world_, size);
    for (const Positions which : {Positions::target, Positions::all}) {
      for (const std::int64_t budget : {20, 4096}) {
        CaptureOptions options{{"forget", "retain"},
                               make_sites(kModules, {0, 1, 2}, golden_.config()),
                               which,
                               budget,
                               "print"};
        const io::StateReader reader(run(layout, options));
        EXPECT_EQ(reader.dtype(),
                  GetParam().dtype == torch::kFloat32 ? io::DType::f32 : io::DType::bf16);
        EXPECT_EQ(reader.sites().size(), options.sites.size());
        for (const std::string set : {"forget", "retain"}) {
          expect_rows(reader, set, which);
          expect_states(reader, set);
        }
      }
    }
  }
}

TEST_P(CaptureTest, SameRankCountTwiceGivesTheSameBytes) {
  const dist::ParallelLayout layout(world_, world_.size() > 1 ? 2 : 1);
  const CaptureOptions options{
      {"forget"}, make_sites(kModules, {1}, golden_.config()), Positions::all, 40, "print"};
  const std::string first = bytes(layout, options, Residency::full);
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(first == bytes(layout, options, Residency::full));
}

TEST_P(CaptureTest, LayersReadOneByOneGiveTheSameStates) {
  const dist::ParallelLayout layout(world_, world_.size() > 1 ? 2 : 1);
  for (const std::vector<std::int64_t>& layers : {std::vector<std::int64_t>{0, 1, 2}, {0}, {1}}) {
    SCOPED_TRACE("last layer " + std::to_string(layers.back()));
    const CaptureOptions options{{"forget", "retain"},
                                 make_sites(kModules, layers, golden_.config()),
                                 Positions::all,
                                 40,
                                 "print"};
    EXPECT_TRUE(bytes(layout, options, Residency::full) ==
                bytes(layout, options, Residency::layer));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, CaptureTest,
                         testing::Values(CaptureCase{"grouped", torch::kFloat32, 1e-4},
                                         CaptureCase{"one_kv_head", torch::kFloat32, 1e-4},
                                         CaptureCase{"grouped_bf16", torch::kBFloat16, 2e-2}),
                         [](const auto& one) { return std::string(one.param.name); });

class CaptureErrorTest : public testing::Test {
 protected:
  /// The message of the Exception that capture throws; the same on all ranks.
  template <class Exception>
  std::string message(const std::vector<std::string>& modules) {
    const dist::ParallelLayout layout(world_, world_.size() > 1 ? 2 : 1);
    CausalLM model(golden_.checkpoint(), golden_.config(), layout, {.head = false});
    const auto path = folder_.path() / "states.h5";
    dist::Timers timers;
    std::string text = "nothing was thrown";
    try {
      capture(
          model, layout, tokens_,
          {{"forget"}, make_sites(modules, {0, 1}, golden_.config()), Positions::target, 20, ""},
          path, timers);
    } catch (const Exception& error) {
      text = error.what();
    }
    world_.barrier();
    EXPECT_FALSE(std::filesystem::exists(path));
    return text;
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
  GoldenCase golden_{"grouped"};
  io::TokenDataset tokens_ = dataset(golden_);
};

TEST_F(CaptureErrorTest, TokenOutsideTheVocabulary) {
  tokens_.sets["forget"].items.token_ids[10] = 67;
  const std::string text = message<dist::InputError>({"stream.output"});
  EXPECT_NE(text.find("set forget, sequence 1: token 67"), std::string::npos) << text;
}

TEST_F(CaptureErrorTest, SetWithoutTargets) {
  std::ranges::fill(tokens_.sets["forget"].items.target_mask, std::uint8_t{0});
  const std::string text = message<dist::InputError>({"stream.output"});
  EXPECT_NE(text.find("\"forget\""), std::string::npos) << text;
}

TEST_F(CaptureErrorTest, UnknownSet) {
  tokens_.sets.erase("forget");
  EXPECT_NE(message<dist::InputError>({"stream.output"}).find("no token set \"forget\""),
            std::string::npos);
}

}  // namespace
}  // namespace mrp::shard
