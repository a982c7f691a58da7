// find_subspace against scipy (golden.py), over rules, projectors, routes and grids.
#include "solver/subspace.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <tuple>

#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::largest_angle;
using testing::largest_difference;
using testing::MemoryStates;
using testing::normal_states;
using testing::on_every_grid;
using testing::projector_matrix;
using testing::read_file;

struct Golden {
  explicit Golden(const std::string& name) : folder(name + "/") {
    const auto text = read_file<char>(folder + "sizes.txt");
    std::istringstream(std::string(text.begin(), text.end())) >> width >> forget_rows >>
        retain_rows >> k;
  }
  MemoryStates forget() const {
    return {forget_rows, width, read_file<float>(folder + "forget.f32")};
  }
  MemoryStates retain() const {
    return {retain_rows, width, read_file<float>(folder + "retain.f32")};
  }

  std::string folder;
  std::int64_t width = 0, forget_rows = 0, retain_rows = 0, k = 0;
};

const char* name(Rule rule) {
  switch (rule) {
    case Rule::gevp:
      return "gevp";
    case Rule::cpca:
      return "cpca";
    case Rule::retain_complement:
      return "retain_complement";
    case Rule::forget_complement:
      return "forget_complement";
    case Rule::forget_pca:
      return "forget_pca";
    case Rule::random:
      return "random";
  }
  return "";
}

void expect_golden(const BlacsGrid& grid, const Golden& golden, Rule rule, ProjectorKind kind,
                   Route route) {
  const bool oblique = kind == ProjectorKind::oblique;
  SCOPED_TRACE(golden.folder + name(rule) + (oblique ? " oblique" : " orthogonal") +
               (route == Route::feature_space ? " feature" : " sample"));
  SubspaceOptions options;
  options.rule = rule;
  options.projector = kind;
  options.dimension = golden.k;
  options.route = route;
  const Subspace found = find_subspace(grid, golden.forget(), golden.retain(), options);
  ASSERT_EQ(found.k, golden.k);
  EXPECT_EQ(found.route, route);

  const std::string prefix = golden.folder + name(rule);
  const auto values = read_file<double>(prefix + ".values.f64");
  ASSERT_EQ(found.eigenvalues.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(found.eigenvalues[i] / values[i], 1, 1e-8) << "eigenvalue " << i;
  }
  const Tall kernel =
      from_row_major(read_file<double>(prefix + ".kernel.f64"), golden.width, golden.k);
  EXPECT_LT(largest_angle(from_row_major(found.a, golden.width, golden.k), kernel), 1e-6);

  const std::string kind_name = prefix + (oblique ? ".oblique" : ".orthogonal");
  const Tall p = from_row_major(read_file<double>(kind_name + ".f64"), golden.width, golden.width);
  EXPECT_LT(largest_difference(projector_matrix(found).values, p.values), 1e-6);
  const auto numbers = read_file<double>(kind_name + ".numbers.f64");
  EXPECT_NEAR(found.retain_distortion, numbers[0], 1e-8);
  EXPECT_NEAR(found.forget_removed, numbers[1], 1e-8);
}

class AgainstScipy
    : public ::testing::TestWithParam<std::tuple<std::string, Rule, ProjectorKind, Route>> {};

TEST_P(AgainstScipy, OnEveryGrid) {
  const auto& [golden, rule, kind, route] = GetParam();
  const auto world = dist::Communicator::world();
  on_every_grid(
      world, [&, golden = golden, rule = rule, kind = kind, route = route](const BlacsGrid& grid) {
        expect_golden(grid, Golden(golden), rule, kind, route);
      });
}

constexpr Rule rules[] = {Rule::gevp, Rule::cpca, Rule::retain_complement, Rule::forget_complement,
                          Rule::forget_pca};

INSTANTIATE_TEST_SUITE_P(
    Rules, AgainstScipy,
    ::testing::Combine(::testing::Values("tall", "wide"), ::testing::ValuesIn(rules),
                       ::testing::Values(ProjectorKind::oblique),
                       ::testing::Values(Route::feature_space, Route::sample_space)));
INSTANTIATE_TEST_SUITE_P(Orthogonal, AgainstScipy,
                         ::testing::Combine(::testing::Values("tall"), ::testing::ValuesIn(rules),
                                            ::testing::Values(ProjectorKind::orthogonal),
                                            ::testing::Values(Route::feature_space)));
INSTANTIATE_TEST_SUITE_P(
    MassiveChannel, AgainstScipy,
    ::testing::Combine(::testing::Values("massive"), ::testing::ValuesIn(rules),
                       ::testing::Values(ProjectorKind::oblique),
                       ::testing::Values(Route::feature_space, Route::sample_space)));

// Different problems at the same time on the parts of a split communicator, of unequal size.
TEST(Subspace, SideBySideOnSubGrids) {
  const auto world = dist::Communicator::world();
  const int small = (world.size() + 2) / 3;  // 6: 2 + 4, 4: 2 + 2, 2: 1 + 1
  const bool first = world.rank() < small;
  const auto part = world.split(first ? 0 : 1, world.rank());
  const BlacsGrid grid(part);
  const Golden golden(first ? "tall" : "wide");
  const Route route = first ? Route::feature_space : Route::sample_space;
  for (const Rule rule : {Rule::gevp, Rule::cpca}) {
    expect_golden(grid, golden, rule, ProjectorKind::oblique, route);
  }
}

// Ranks make and use grids of their own while others make none.
TEST(Subspace, RanksAloneOnTheirOwnProblems) {
  const auto world = dist::Communicator::world();
  const auto self = dist::Communicator::self();
  const char* names[] = {"tall", "wide", "massive"};
  for (int round = 0; round < world.rank() % 3 + 1; ++round) {
    const BlacsGrid grid(self);
    expect_golden(grid, Golden(names[(world.rank() + round) % 3]), Rule::gevp,
                  ProjectorKind::oblique, Route::feature_space);
  }
}

// Large enough for several blocks and several panels per rank, and not a multiple of anything.
TEST(Subspace, RoutesAgreeOnLargerMatrices) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(1, 150, 333, 1.5, {3, 50, 200});
  const auto retain = normal_states(2, 290, 333);
  for (const Rule rule : {Rule::gevp, Rule::random}) {
    SubspaceOptions options;
    options.rule = rule;
    options.dimension = 3;
    options.route = Route::feature_space;
    const Subspace feature = find_subspace(grid, forget, retain, options);
    options.route = Route::sample_space;
    const Subspace sample = find_subspace(grid, forget, retain, options);
    EXPECT_LT(largest_difference(projector_matrix(feature).values, projector_matrix(sample).values),
              1e-7);
    for (std::size_t i = 0; i < feature.eigenvalues.size(); ++i) {
      EXPECT_NEAR(feature.eigenvalues[i] / sample.eigenvalues[i], 1, 1e-9);
    }
    EXPECT_NEAR(feature.retain_distortion, sample.retain_distortion, 1e-9);
    EXPECT_NEAR(feature.forget_removed, sample.forget_removed, 1e-9);
  }
}

// Sizes above the chunk of one read (4096 rows or columns).
TEST(Subspace, ManyChunks) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(3, 5000, 12, 2, {10}), retain = normal_states(4, 5000, 12);
  SubspaceOptions options;
  options.dimension = 1;
  const Subspace feature = find_subspace(grid, forget, retain, options);
  EXPECT_EQ(feature.route, Route::feature_space);
  // λ of channel 10: (1/11 + 4) / (1/11 + ε), ε = 1e-2 · mean variance
  EXPECT_NEAR(feature.eigenvalues[0], (1.0 / 11 + 4) / (1.0 / 11 + 1e-2 * 3.1 / 12), 2.5);
  EXPECT_GT(std::abs(feature.a[10]), 10 * std::abs(feature.a[0]));

  const auto few = normal_states(5, 8, 9001, 2, {10}), others = normal_states(6, 9, 9001);
  options.route = Route::automatic;
  const Subspace wide = find_subspace(grid, few, others, options);
  EXPECT_EQ(wide.route, Route::sample_space);
  options.route = Route::sample_space;
  EXPECT_EQ(find_subspace(grid, few, others, options).a, wide.a);
}

// E_r‖h − Ph‖² over all P with the same kernel is least for the oblique projector.
TEST(Subspace, ObliqueChangesRetainLeast) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const Golden golden("tall");
  SubspaceOptions options;
  options.dimension = golden.k;
  options.ridge = 1e-9;  // the ridge guards against large B at the cost of a little distortion
  for (const Rule rule : {Rule::gevp, Rule::cpca, Rule::random}) {
    options.rule = rule;
    options.projector = ProjectorKind::oblique;
    const Subspace oblique = find_subspace(grid, golden.forget(), golden.retain(), options);
    options.projector = ProjectorKind::orthogonal;
    const Subspace orthogonal = find_subspace(grid, golden.forget(), golden.retain(), options);
    EXPECT_LT(oblique.retain_distortion, orthogonal.retain_distortion);
    EXPECT_LT(largest_angle(from_row_major(oblique.a, golden.width, golden.k),
                            from_row_major(orthogonal.a, golden.width, golden.k)),
              1e-7);
  }
}

// Kernels of further requests hold those of earlier ones; what is asked for again counts once.
TEST(Subspace, KernelsAreNested) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const auto forget = normal_states(1, 60, 40, 2, {3, 5, 20});
  const auto more = normal_states(2, 60, 40, 2, {8, 30}), retain = normal_states(3, 90, 40);
  SubspaceOptions options;
  for (const Route route : {Route::feature_space, Route::sample_space}) {
    options.route = route;
    options.dimension = 3;
    const Subspace first = find_subspace(grid, forget, retain, options);
    const Tall kernel = from_row_major(first.a, 40, 3);
    EXPECT_LT(
        largest_angle(
            kernel, from_row_major(find_subspace(grid, forget, retain, options, kernel).a, 40, 3)),
        1e-7);
    options.dimension = 2;
    const Subspace second = find_subspace(grid, more, retain, options, kernel);
    ASSERT_EQ(second.k, 5);
    const Tall removed = multiply(projector_matrix(second), kernel);
    EXPECT_LT(largest_difference(removed.values, Tall(40, 3).values), 1e-9);
    EXPECT_GT(second.forget_removed, 5 * second.retain_distortion);
  }
}

TEST(Subspace, SameBytesOnAllRanksAndInTheNextRun) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  for (const char* golden_name : {"tall", "wide"}) {
    const Golden golden(golden_name);
    for (const Rule rule : {Rule::gevp, Rule::random}) {
      SubspaceOptions options;
      options.rule = rule;
      const Subspace once = find_subspace(grid, golden.forget(), golden.retain(), options);
      const Subspace twice = find_subspace(grid, golden.forget(), golden.retain(), options);
      EXPECT_EQ(once.a, twice.a);
      EXPECT_EQ(once.b, twice.b);
      EXPECT_EQ(once.eigenvalues, twice.eigenvalues);
      EXPECT_EQ(once.null_edge, twice.null_edge);
      std::vector<double> roots = once.a;
      roots.insert(roots.end(), once.b.begin(), once.b.end());
      roots.push_back(once.retain_distortion);
      const std::vector<double> mine = roots;
      world.broadcast(std::span<double>(roots));
      EXPECT_EQ(mine, roots);
    }
  }
}

TEST(Subspace, SeedDecidesRandomDirections) {
  const auto world = dist::Communicator::world();
  const BlacsGrid grid(world);
  const Golden golden("tall");
  SubspaceOptions options;
  options.rule = Rule::random;
  options.dimension = 3;
  const auto first = find_subspace(grid, golden.forget(), golden.retain(), options);
  options.seed = 1;
  const auto second = find_subspace(grid, golden.forget(), golden.retain(), options);
  EXPECT_GT(largest_angle(from_row_major(first.a, golden.width, 3),
                          from_row_major(second.a, golden.width, 3)),
            0.5);
}

}  // namespace
}  // namespace mrp::solver
