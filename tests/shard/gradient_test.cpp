// Gradients of the tensor-parallel model against those of one rank, and against differences.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <random>

#include "shard/golden_case.hpp"
#include "shard/model/vocab_parallel.hpp"
#include "shard/train/pass.hpp"
#include "shard/train/trainable.hpp"

namespace mrp::shard {
namespace {

std::vector<Example> random_examples(std::int64_t vocabulary) {
  std::mt19937_64 random(5);
  std::vector<Example> examples;
  for (const std::size_t length : {9u, 5u, 7u}) {
    Example example;
    for (std::size_t t = 0; t < length; ++t) {
      example.tokens.push_back(static_cast<std::int32_t>(random() % std::uint64_t(vocabulary)));
      example.mask.push_back(t + 1 < length && t > 1 ? 1 : 0);
    }
    example.letter_position = 2;
    example.letters = {3, 1, 4};
    examples.push_back(example);
  }
  return examples;
}

/// Something of everything that losses use.
torch::Tensor objective(const CausalLM& model, const std::vector<Example>& examples,
                        const torch::Tensor& reference) {
  const Pass pass = run(model, examples);
  const dist::Range slice = model.vocab_range();
  const torch::Tensor own = reference.slice(1, slice.begin, slice.end);
  return mean_by_example(pass, log_probability(pass)).sum() + spread(pass.letter_logits).sum() +
         0.1 * vocabulary_spread(model, pass.logits - own).sum() +
         kl_divergence(model, own, pass.logits).sum();
}

void zero_gradients(Trainable& trainable) {
  for (Leaf& leaf : trainable.leaves()) leaf.value.mutable_grad() = torch::zeros_like(leaf.value);
}

/// Orthonormal columns, damped.
Confinement random_confinement(std::int64_t width) {
  const std::int64_t r = std::min<std::int64_t>(width, 3);
  return {std::get<0>(torch::linalg_qr(torch::randn({width, r}))), torch::full({r}, 0.8)};
}

torch::Tensor as_matrix(const Confinement& c) {
  return torch::eye(c.u.size(0)) - torch::matmul(c.u * c.damping, c.u.t());
}

/// T of a weight, block by block.
torch::Tensor as_matrix(const std::vector<Confinement>& blocks) {
  std::vector<torch::Tensor> matrices;
  for (const Confinement& block : blocks) matrices.push_back(as_matrix(block));
  return torch::block_diag(matrices);
}

/// Everything is confined, and every input side projected.
TrainableOptions random_options(TrainForm form, CausalLM& model) {
  torch::manual_seed(3);  // the same on all ranks
  TrainableOptions options;
  options.form = form;
  options.rank = 2;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input) continue;
    const std::int64_t width = parameter.value->size(1);
    options.confinement[*parameter.input] = random_confinement(width);
    options.projections[*parameter.input] = options.confinement[*parameter.input].u;
    if (form != TrainForm::subspace) continue;
    for (const WeightBlock& block : parameter.blocks) {
      options.outputs[parameter.name].push_back(random_confinement(block.rows.size()));
    }
  }
  return options;
}

/// M has three columns.
TrainableOptions low_options(CausalLM& model) {
  TrainableOptions options = random_options(TrainForm::subspace, model);
  for (const auto& [site, s] : options.confinement) options.bases[site] = s.u;
  options.confinement.clear();
  return options;
}

/// A and B [width × 2] of every input side, of a split one this rank's rows.
std::map<Site, Projector> random_projectors(CausalLM& model, const dist::Communicator& ranks) {
  torch::manual_seed(7);  // the same on all ranks
  std::map<Site, Projector> projectors;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input) continue;
    const std::int64_t own = parameter.value->size(1);
    const bool split = parameter.input->is_split();
    const auto random = [&] {
      return (torch::randn({split ? own * ranks.size() : own, 2}) / 10)
          .narrow(0, split ? own * ranks.rank() : 0, own);
    };
    const torch::Tensor a = random();
    projectors[*parameter.input] = {a, random()};
  }
  return projectors;
}

/// With a projector that may grow to four columns.
TrainableOptions growing_options(CausalLM& model) {
  TrainableOptions options = random_options(TrainForm::subspace, model);
  options.kernel = 4;
  return options;
}

/// V [width × 2], and A = C V of some moments C, for each site.
std::map<Site, Projector> random_growth(const Trainable& trainable) {
  std::map<Site, Projector> added;
  for (const auto& [site, grown] : trainable.grown()) {
    const std::int64_t width = grown.a.size(0);
    const auto unit = [](const torch::Tensor& m) { return m / torch::linalg_vector_norm(m, 2, 0); };
    const torch::Tensor v = unit(torch::randn({width, 2})), x = torch::randn({width, width});
    added[site] = {unit(torch::matmul(x, torch::matmul(x.t(), v))), v};
  }
  return added;
}

class GradientTest : public testing::TestWithParam<const char*> {
 protected:
  dist::Communicator world_ = dist::Communicator::world();
  dist::Communicator self_ = dist::Communicator::self();
  test::GoldenCase golden_{GetParam()};
};

TEST_P(GradientTest, TensorParallelEqualsOneRank) {
  const auto sizes = legal_tensor_sizes(golden_.config());
  if (std::count(sizes.begin(), sizes.end(), world_.size()) == 0) return;
  const dist::ParallelLayout together(world_, world_.size()), alone(self_, 1);
  const auto examples = random_examples(golden_.config().vocab_size);
  torch::manual_seed(3);
  const torch::Tensor reference = torch::randn({12, golden_.config().vocab_size});
  for (const auto& [recompute, projected] :
       {std::pair(false, false), std::pair(true, false), std::pair(false, true)}) {
    CausalLM split(golden_.checkpoint(), golden_.config(), together,
                   {.recompute_layers = recompute});
    CausalLM whole(golden_.checkpoint(), golden_.config(), alone, {});
    TrainableOptions options;
    options.form = TrainForm::weights;
    options.everything = true;
    if (projected) options.projectors = random_projectors(whole, self_);
    Trainable of_whole(whole, options);
    if (projected) options.projectors = random_projectors(split, world_);
    Trainable of_split(split, options);
    for (Trainable* trainable : {&of_split, &of_whole}) {
      zero_gradients(*trainable);
      trainable->apply();
      objective(trainable->model(), examples, reference).backward();
      trainable->collect();
      trainable->finish_gradients();
    }
    // Blocks of the whole gradient, by tensor of the checkpoint.
    std::map<std::string, torch::Tensor> expected;
    const auto visit = [](Trainable& trainable, auto&& f) {
      std::size_t leaf = 0;
      trainable.visit_changes([&](const Parameter& parameter, const torch::Tensor&) {
        torch::Tensor gradient = trainable.leaves()[leaf++].value.grad();
        if (gradient.dim() == 1) gradient = gradient.unsqueeze(0);
        std::int64_t row = 0, column = 0;
        for (const WeightBlock& block : parameter.blocks) {
          const bool vector = block.height == 1;
          f(block, vector ? gradient.narrow(1, column, block.columns.size())
                          : gradient.narrow(0, row, block.rows.size()));
          row += block.rows.size();
          column += vector ? block.columns.size() : 0;
        }
      });
    };
    visit(of_whole, [&](const WeightBlock& block, const torch::Tensor& gradient) {
      expected[block.tensor] = gradient;
    });
    visit(of_split, [&](const WeightBlock& block, const torch::Tensor& gradient) {
      const torch::Tensor all = expected.at(block.tensor);
      const torch::Tensor same = all.narrow(0, block.rows.begin, block.rows.size())
                                     .narrow(1, block.columns.begin, block.columns.size());
      const double difference = (gradient - same).abs().max().item<double>();
      EXPECT_LE(difference, 1e-5 * std::max(1.0, all.abs().max().item<double>())) << block.tensor;
      EXPECT_GT(all.abs().max().item<double>(), 0.0) << block.tensor;
    });
  }
}

TEST_P(GradientTest, EveryFormMatchesDifferences) {
  const auto sizes = legal_tensor_sizes(golden_.config());
  if (std::count(sizes.begin(), sizes.end(), world_.size()) == 0) return;
  const dist::ParallelLayout layout(world_, world_.size());
  const auto examples = random_examples(golden_.config().vocab_size);
  torch::manual_seed(3);
  const torch::Tensor reference = torch::randn({12, golden_.config().vocab_size});
  CausalLM model(golden_.checkpoint(), golden_.config(), layout, {});
  const TrainableOptions forms[] = {
      random_options(TrainForm::subspace, model), low_options(model), growing_options(model),
      random_options(TrainForm::projections, model), random_options(TrainForm::lora, model)};
  for (const TrainableOptions& options : forms) {
    const TrainForm form = options.form;
    Trainable trainable(model, options);
    if (options.kernel > 0) trainable.grow(random_growth(trainable), 0);
    const auto value = [&] {
      trainable.apply();
      const torch::NoGradGuard no_grad;
      return objective(model, examples, reference).item<double>();
    };
    zero_gradients(trainable);
    trainable.apply();
    objective(model, examples, reference).backward();
    trainable.collect();
    trainable.finish_gradients();
    // Along a direction that is the same on all ranks where the leaf is.
    constexpr double kStep = 2e-3;
    double slope = 0;
    std::vector<torch::Tensor> directions;
    std::vector<dist::Range> shared_rows;
    trainable.visit_changes([&](const Parameter& parameter, const torch::Tensor&) {
      if (form == TrainForm::lora) shared_rows.push_back({});
      const bool by_rows = form != TrainForm::projections && parameter.sharers != nullptr;
      shared_rows.push_back(by_rows ? parameter.shared_rows : dist::Range{});
    });
    for (Leaf& leaf : trainable.leaves()) {
      torch::manual_seed(leaf.replicated ? std::uint64_t{11}
                                         : static_cast<std::uint64_t>(100 + world_.rank()));
      directions.push_back(torch::randn(leaf.value.sizes()) * 0.3);
      // Rows that ranks share must move alike: here, not at all.
      const dist::Range shared = shared_rows[directions.size() - 1];
      directions.back().narrow(0, shared.begin, shared.size()).zero_();
      const double own = (directions.back() * leaf.value.grad()).sum().item<double>();
      slope += leaf.replicated ? own / world_.size() : own;
    }
    slope = layout.tensor().all_reduce(slope);
    const auto move = [&](double step) {
      const torch::NoGradGuard no_grad;
      for (std::size_t i = 0; i < directions.size(); ++i) {
        trainable.leaves()[i].value.add_(directions[i], step);
      }
    };
    move(kStep);
    const double above = value();
    move(-2 * kStep);
    const double below = value();
    EXPECT_NEAR((above - below) / (2 * kStep), slope, 1e-2 * std::max(1.0, std::abs(slope)))
        << static_cast<int>(form) << (options.bases.empty() ? ", " : ", low, ") << options.kernel;
  }
}

TEST_P(GradientTest, ShrunkWeightsBeginWithoutWhatIsLeftFree) {
  const dist::ParallelLayout alone(self_, 1);
  CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
  TrainableOptions options = random_options(TrainForm::subspace, model);
  options.shrink = 0.5;
  std::vector<torch::Tensor> expected;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input) continue;
    const torch::Tensor s = as_matrix(options.confinement.at(*parameter.input));
    const torch::Tensor t = as_matrix(options.outputs.at(parameter.name));
    const torch::Tensor& w = *parameter.value;
    expected.push_back(w - 0.5 * t.matmul(w).matmul(s).matmul(s));
  }
  Trainable trainable(model, options);
  trainable.apply();
  const std::vector<torch::Tensor> found = trainable.applied();
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(), 1e-5);
  }
}

TEST_P(GradientTest, TheLowFormTakesItsDirectionsAway) {
  const dist::ParallelLayout alone(self_, 1);
  CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
  TrainableOptions options = low_options(model);
  options.outputs.clear();
  options.shrink = 1;
  std::vector<torch::Tensor> expected;
  for (const Parameter& parameter : model.parameters()) {
    if (!parameter.input) continue;
    const torch::Tensor& s = options.bases.at(*parameter.input);
    const torch::Tensor& w = *parameter.value;
    expected.push_back(w - torch::matmul(torch::matmul(w, s), s.t()));
  }
  Trainable trainable(model, options);
  trainable.apply();
  const std::vector<torch::Tensor> found = trainable.applied();
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(trainable.leaves()[i].value.size(1), 3);
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(), 1e-5);
  }
}

TEST_P(GradientTest, ProjectorsGrowAndKeepTheirKernels) {
  const dist::ParallelLayout alone(self_, 1);
  CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
  std::vector<std::pair<Site, torch::Tensor>> base;
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.input) base.emplace_back(*parameter.input, *parameter.value);
  }
  Trainable trainable(model, growing_options(model));
  std::map<Site, torch::Tensor> patterns, last;
  for (const std::int64_t round : {0, 1}) {
    const auto all = random_growth(trainable);
    trainable.grow(all, round);
    for (const auto& [site, added] : all) {
      patterns[site] = round == 0 ? added.a : torch::cat({patterns[site], added.a}, 1);
      last[site] = added.b;
    }
  }
  trainable.apply();
  const std::vector<torch::Tensor> found = trainable.applied();
  ASSERT_EQ(found.size(), base.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& [site, w] = base[i];
    const auto& [a, b] = trainable.grown().at(site);
    const torch::Tensor p = torch::eye(a.size(0)) - torch::matmul(a, b.t());
    const auto largest = [](const torch::Tensor& x) { return x.abs().max().item<double>(); };
    EXPECT_LE(largest(torch::matmul(p, p) - p), 1e-4);
    EXPECT_LE(largest(torch::matmul(p, patterns[site])), 1e-4);
    EXPECT_LE(largest(torch::matmul(last[site].t(), p)), 1e-4);
    EXPECT_LE(largest(found[i] - torch::matmul(w, p)), 1e-5);
  }
}

TEST_P(GradientTest, WhatIsGoneAddsNothing) {
  const dist::ParallelLayout alone(self_, 1);
  CausalLM model(golden_.checkpoint(), golden_.config(), alone, {});
  Trainable trainable(model, growing_options(model));
  const auto added = random_growth(trainable);
  std::vector<torch::Tensor> before;
  for (const std::int64_t round : {0, 1}) {
    trainable.grow(added, round);
    trainable.apply();
    const std::vector<torch::Tensor> now = trainable.applied();
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(torch::allclose(now[i], before[i], 0.0, 1e-5));
    }
    before = now;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, GradientTest,
                         testing::Values("tied", "grouped", "one_kv_head", "mistral"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace mrp::shard
