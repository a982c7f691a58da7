// The automatic dimension: nothing where there is nothing, all of a clear signal.
#include <gtest/gtest.h>

#include "dist/error.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::MemoryStates;
using testing::normal_states;

struct Design {
  const char* name;
  std::int64_t width, forget_rows, retain_rows, sequence_length;
  double common;  // share of variance that rows of a sequence have in common
};

// Independent rows, sequences, few forget rows, fewer rows than channels.
const Design designs[] = {{"independent", 24, 120, 240, 1, 0},
                          {"sequences", 24, 150, 300, 3, 0.5},
                          {"few_forget", 24, 30, 600, 3, 0.5},
                          {"sample_space", 120, 30, 60, 2, 0.3}};

class NullCase : public ::testing::TestWithParam<Design> {};

// Each seed is one rank's problem: side by side on 1 × 1 grids.
TEST_P(NullCase, FindsNothingOn95Of100Seeds) {
  const Design design = GetParam();
  const auto world = dist::Communicator::world();
  const auto self = dist::Communicator::self();
  const BlacsGrid grid(self);
  std::int64_t found = 0;
  for (int seed = world.rank(); seed < 100; seed += world.size()) {
    const auto s = static_cast<std::uint64_t>(2 * seed);
    const auto forget = normal_states(s, design.forget_rows, design.width, 0, {},
                                      design.sequence_length, design.common);
    const auto retain = normal_states(s + 1, design.retain_rows, design.width, 0, {},
                                      design.sequence_length, design.common);
    const Subspace result = find_subspace(grid, forget, retain, {});
    EXPECT_GT(result.null_edge, 0);
    if (result.k > 0) ++found;
    EXPECT_EQ(result.a.size(), static_cast<std::size_t>(design.width * result.k));
  }
  EXPECT_LE(world.all_reduce(found), 5);
}

INSTANTIATE_TEST_SUITE_P(Designs, NullCase, ::testing::ValuesIn(designs),
                         [](const auto& parameter) { return parameter.param.name; });

class PlantedSignal : public ::testing::TestWithParam<Design> {};

// k = 5 on every seed, each one rank's problem, and the planted channels are what is removed.
TEST_P(PlantedSignal, FindsItsFiveDimensions) {
  const Design design = GetParam();
  const auto world = dist::Communicator::world();
  const auto self = dist::Communicator::self();
  const BlacsGrid grid(self);
  const std::vector<std::int64_t> planted{2, 5, 9, 14, 20};
  Tall channels(design.width, 5);
  for (std::int64_t j = 0; j < 5; ++j) channels(planted[static_cast<std::size_t>(j)], j) = 1;
  for (int seed = world.rank(); seed < 24; seed += world.size()) {
    const auto s = static_cast<std::uint64_t>(seed);
    const auto forget = normal_states(1000 + s, design.forget_rows, design.width, 3, planted,
                                      design.sequence_length, design.common);
    const auto retain = normal_states(2000 + s, design.retain_rows, design.width, 0, {},
                                      design.sequence_length, design.common);
    for (const Rule rule : {Rule::gevp, Rule::cpca, Rule::random}) {
      SubspaceOptions options;
      options.rule = rule;
      const Subspace result = find_subspace(grid, forget, retain, options);
      EXPECT_EQ(result.k, 5) << "seed " << seed;
      if (rule == Rule::random || result.k != 5) continue;
      EXPECT_GT(result.forget_removed, 0.85);
      EXPECT_LT(testing::largest_angle(from_row_major(result.a, design.width, 5), channels), 0.6);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Designs, PlantedSignal,
                         ::testing::Values(designs[0], designs[1], designs[2]),
                         [](const auto& parameter) { return parameter.param.name; });

// For independent rows and a tiny ridge theory knows the edge: ((1+h)/(1−y_r))², h² = y_f + y_r −
// y_f y_r.
TEST(NullEdge, AgreesWithWachter) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  for (const auto& [forget_rows, retain_rows] : {std::pair{200, 400}, std::pair{100, 500}}) {
    constexpr std::int64_t width = 60;
    SubspaceOptions options;
    options.ridge = 1e-6;
    const Subspace result = find_subspace(grid, normal_states(1, forget_rows, width),
                                          normal_states(2, retain_rows, width), options);
    const double yf = static_cast<double>(width) / forget_rows,
                 yr = static_cast<double>(width) / retain_rows;
    const double edge = std::pow((1 + std::sqrt(yf + yr - yf * yr)) / (1 - yr), 2);
    EXPECT_GT(result.null_edge, 0.9 * edge);
    EXPECT_LT(result.null_edge, 1.5 * edge);
  }
}

TEST(Choice, IsTheSameOnEveryGrid) {
  const auto world = dist::Communicator::world();
  const auto self = dist::Communicator::self();
  const auto forget = normal_states(1, 150, 24, 3, {2, 9, 14}), retain = normal_states(2, 300, 24);
  const Subspace alone = find_subspace(BlacsGrid(self), forget, retain, {});
  EXPECT_EQ(alone.k, 3);
  testing::on_every_grid(world, [&](const BlacsGrid& grid) {
    const Subspace together = find_subspace(grid, forget, retain, {});
    EXPECT_EQ(together.k, alone.k);
    EXPECT_NEAR(together.null_edge / alone.null_edge, 1, 1e-9);
    EXPECT_LT(testing::largest_difference(testing::projector_matrix(together).values,
                                          testing::projector_matrix(alone).values),
              1e-9);
  });
}

// Both routes must measure the same edge: the divisions are a function of the sequences alone.
TEST(NullEdge, IsTheSameOnBothRoutes) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(7, 60, 80, 2, {3}, 3, 0.4),
             retain = normal_states(8, 90, 80, 0, {}, 3, 0.4);
  SubspaceOptions options;
  options.route = Route::feature_space;
  const Subspace feature = find_subspace(grid, forget, retain, options);
  options.route = Route::sample_space;
  const Subspace sample = find_subspace(grid, forget, retain, options);
  EXPECT_NEAR(feature.null_edge / sample.null_edge, 1, 1e-8);
  EXPECT_EQ(feature.k, sample.k);
}

TEST(Choice, MaxDimensionCaps) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(1, 200, 24, 5, {2, 5, 9, 14, 20}),
             retain = normal_states(2, 300, 24);
  SubspaceOptions options;
  options.max_dimension = 3;
  EXPECT_EQ(find_subspace(grid, forget, retain, options).k, 3);
  options.max_dimension = 0;
  EXPECT_EQ(find_subspace(grid, forget, retain, options).k, 0);
}

TEST(Choice, FixedDimensionOverridesAndZeroIsAllowed) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(1, 100, 24), retain = normal_states(2, 100, 24);
  SubspaceOptions options;
  options.dimension = 7;
  const Subspace seven = find_subspace(grid, forget, retain, options);
  EXPECT_EQ(seven.k, 7);
  EXPECT_EQ(seven.null_edge, 0);
  options.dimension = 0;
  const Subspace none = find_subspace(grid, forget, retain, options);
  EXPECT_EQ(none.k, 0);
  EXPECT_TRUE(none.a.empty());
  EXPECT_EQ(none.retain_distortion, 0);
}

TEST(Choice, TooFewSequencesAreNamed) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(1, 100, 24, 0, {}, 50),
             retain = normal_states(2, 100, 24, 0, {}, 50);
  EXPECT_THROW(find_subspace(grid, forget, retain, {}), dist::InputError);
  SubspaceOptions options;
  options.dimension = 2;
  EXPECT_EQ(find_subspace(grid, forget, retain, options).k, 2);
}

}  // namespace
}  // namespace mrp::solver
