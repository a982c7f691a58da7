// The model against transformers: logits, loss and the states at every site, on every tensor size.
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/parallel_layout.hpp"
#include "shard/golden_case.hpp"
#include "shard/model/causal_lm.hpp"
#include "shard/site.hpp"

namespace mrp::shard {
namespace {

using test::GoldenCase;

const std::vector<std::string> kModules = {"qkv.input",     "o_proj.input",    "o_proj.output",
                                           "gate_up.input", "down_proj.input", "down_proj.output",
                                           "stream.output"};

struct ModelCase {
  const char* name;
  torch::ScalarType dtype;
  double tolerance() const { return dtype == torch::kFloat32 ? 1e-4 : 2e-2; }
};

class ModelTest : public testing::TestWithParam<ModelCase> {
 protected:
  /// Logits of all real positions [T × vocabulary], complete on every rank.
  torch::Tensor logits(const CausalLM& model, const dist::ParallelLayout& layout,
                       const SiteHook& hook = {}) {
    const torch::Tensor states = model.hidden_states(test::padded_tokens(set_.items), hook);
    const torch::Tensor local = model.local_logits(test::unpadded(states, set_.items));
    EXPECT_EQ(local.scalar_type(), torch::kFloat32);
    return test::assemble(local, model.vocab_range().begin, golden_.config().vocab_size,
                          layout.tensor());
  }

  dist::Communicator world_ = dist::Communicator::world();
  GoldenCase golden_{GetParam().name};
  const ModelOptions options_{.dtype = GetParam().dtype, .inference = true};
  io::TokenSet set_ = golden_.token_set();
};

TEST_P(ModelTest, LogitsEqualTransformers) {
  golden_.on_all_layouts(
      world_, options_, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        EXPECT_LE(test::relative_difference(logits(model, layout), golden_.expected("logits")),
                  GetParam().tolerance());
      });
}

TEST_P(ModelTest, StatesEqualHooksOfTransformersAtEverySite) {
  golden_.on_all_layouts(
      world_, options_, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        std::map<Site, torch::Tensor> seen;
        model.hidden_states(test::padded_tokens(set_.items),
                            [&](const Site& site, const torch::Tensor& states) {
                              EXPECT_FALSE(seen.contains(site)) << site.name();
                              EXPECT_EQ(states.scalar_type(), GetParam().dtype);
                              seen[site] = test::unpadded(states, set_.items).to(torch::kFloat32);
                              return std::optional<torch::Tensor>();
                            });
        const auto sites = make_sites(kModules, {0, 1, 2}, golden_.config());
        EXPECT_EQ(seen.size(), sites.size());
        for (const Site& site : sites) {
          torch::Tensor states = seen[site];
          const std::int64_t width = site.width(golden_.config());
          EXPECT_EQ(states.size(1), site.is_split() ? width / layout.tensor().size() : width);
          if (site.is_split()) {
            states = test::assemble(states, layout.tensor().rank() * states.size(1), width,
                                    layout.tensor());
          }
          EXPECT_LE(test::relative_difference(states, golden_.expected(site.name())),
                    GetParam().tolerance())
              << site.name();
        }
      });
}

TEST_P(ModelTest, ReplacedStatesChangeLogitsAsInTransformers) {
  golden_.on_all_layouts(
      world_, options_, [&](const CausalLM& model, const dist::ParallelLayout& layout) {
        const SiteHook hook = [](const Site& site,
                                 const torch::Tensor& states) -> std::optional<torch::Tensor> {
          const std::string name = site.name();
          if (name != "layers.0.o_proj.output" && name != "layers.1.down_proj.input") return {};
          return states * 0.5 + 0.1;
        };
        EXPECT_LE(test::relative_difference(logits(model, layout, hook),
                                            golden_.expected("replaced_logits")),
                  GetParam().tolerance());
      });
}

TEST_P(ModelTest, FewerLayersWithoutHeadGiveTheSameStream) {
  const ModelOptions options{.dtype = GetParam().dtype, .layers = 2, .head = false};
  golden_.on_all_layouts(world_, options, [&](const CausalLM& model, const dist::ParallelLayout&) {
    EXPECT_EQ(model.layers(), 2);
    const torch::Tensor states = model.hidden_states(test::padded_tokens(set_.items));
    EXPECT_LE(test::relative_difference(test::unpadded(states, set_.items),
                                        golden_.expected("layers.1.stream.output")),
              GetParam().tolerance());
  });
}

INSTANTIATE_TEST_SUITE_P(Golden, ModelTest,
                         testing::Values(ModelCase{"tied", torch::kFloat32},
                                         ModelCase{"grouped", torch::kFloat32},
                                         ModelCase{"one_kv_head", torch::kFloat32},
                                         ModelCase{"mistral", torch::kFloat32},
                                         ModelCase{"dynamic_gelu", torch::kFloat32},
                                         ModelCase{"half_on_disk", torch::kFloat32},
                                         ModelCase{"grouped_bf16", torch::kBFloat16},
                                         ModelCase{"one_kv_head_bf16", torch::kBFloat16},
                                         ModelCase{"single_to_bf16", torch::kBFloat16},
                                         ModelCase{"wide_bf16", torch::kBFloat16}),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(VisitSitesTest, NothingBehindTheLastSiteIsVisited) {
  const auto world = dist::Communicator::world();
  const GoldenCase golden("grouped");
  const dist::ParallelLayout layout(world, world.size());
  const CausalLM model(golden.checkpoint(), golden.config(), layout, {});
  const torch::Tensor tokens = test::padded_tokens(golden.token_set().items);
  const auto sites = make_sites(kModules, {0, 1, 2}, golden.config());
  for (auto last = sites.begin(); last != sites.end(); ++last) {
    std::vector<Site> seen;
    const SiteHook note = [&](const Site& site, const torch::Tensor&) {
      seen.push_back(site);
      return std::optional<torch::Tensor>();
    };
    model.visit_sites(tokens, note, *last);
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), sites.begin(), last + 1)) << last->name();
  }
}

/// The GPU part: the same numbers through CUDA and NCCL.
TEST(CudaModelTest, LogitsEqualTransformers) {
  const auto world = dist::Communicator::world();
  const auto devices =
      static_cast<int>(torch::cuda::is_available() ? torch::cuda::device_count() : 0);
  if (world.split_node().all_reduce(devices, dist::ReduceOp::min) < world.size()) {
    GTEST_SKIP() << "CUDA NOT TESTED: " << devices << " GPUs visible for " << world.size()
                 << " ranks";
  }
  const GoldenCase golden("grouped");
  const io::TokenSet set = golden.token_set();
  const dist::ParallelLayout layout(world, world.size());
  const CausalLM model(golden.checkpoint(), golden.config(), layout,
                       {.device = local_device(torch::kCUDA, world)});
  const torch::Tensor states = model.hidden_states(test::padded_tokens(set.items));
  EXPECT_TRUE(states.is_cuda());
  const torch::Tensor local = model.local_logits(test::unpadded(states, set.items)).cpu();
  const torch::Tensor logits =
      test::assemble(local, model.vocab_range().begin, golden.config().vocab_size, layout.tensor());
  // cuBLAS may use other orders of summation, not other precisions: TF32 is off by default.
  EXPECT_LE(test::relative_difference(logits, golden.expected("logits")), 1e-4);
}

}  // namespace
}  // namespace mrp::shard
