// Bad states and options: one clear message, the same on all ranks, nobody left waiting.
#include <gtest/gtest.h>

#include <limits>

#include "dist/error.hpp"
#include "solver/support.hpp"

namespace mrp::solver {
namespace {

using testing::MemoryStates;
using testing::normal_states;

class Errors : public ::testing::Test {
 protected:
  // The error that find_subspace throws, the same on every rank.
  void expect_error(const StateSource& forget, const StateSource& retain,
                    const SubspaceOptions& options, dist::ExitCode code,
                    const std::vector<std::string>& words) {
    std::string message;
    try {
      find_subspace(grid_, forget, retain, options);
    } catch (const dist::Error& error) {
      message = error.what();
      EXPECT_EQ(error.exit_code(), code) << message;
    }
    for (const std::string& word : words) {
      EXPECT_NE(message.find(word), std::string::npos) << "no '" << word << "' in: " << message;
    }
    EXPECT_EQ(message, world_.broadcast(message));
  }

  dist::Communicator world_ = dist::Communicator::world();
  BlacsGrid grid_{world_};
  MemoryStates forget_ = normal_states(1, 40, 30, 0, {}, 2);
  MemoryStates retain_ = normal_states(2, 50, 30, 0, {}, 2);
};

TEST_F(Errors, NonFiniteStatesNameRowAndSequence) {
  for (const Route route : {Route::feature_space, Route::sample_space}) {
    SubspaceOptions options;
    options.dimension = 2;
    options.route = route;
    MemoryStates broken = retain_;
    broken.at(33, 29) = std::numeric_limits<float>::quiet_NaN();
    expect_error(forget_, broken, options, dist::ExitCode::numerical,
                 {"row 33 of the retain states", "sequence 16", "NaN"});
    broken = forget_;
    broken.at(7, 0) = -std::numeric_limits<float>::infinity();
    expect_error(broken, retain_, options, dist::ExitCode::numerical,
                 {"row 7 of the forget states", "sequence 3"});
  }
}

// Fails on one rank only.
class FailingStates : public MemoryStates {
 public:
  FailingStates(const MemoryStates& states, bool fails) : MemoryStates(states), fails_(fails) {}
  void read(dist::Range rows, dist::Range columns, std::span<float> out) const override {
    if (fails_) throw dist::InputError("disk is gone");
    MemoryStates::read(rows, columns, out);
  }

 private:
  bool fails_;
};

TEST_F(Errors, OneFailingRankStopsAll) {
  const FailingStates failing(retain_, world_.rank() == world_.size() - 1);
  for (const Route route : {Route::feature_space, Route::sample_space}) {
    SubspaceOptions options;
    options.dimension = 2;
    options.route = route;
    expect_error(forget_, failing, options, dist::ExitCode::input, {"disk is gone"});
  }
}

TEST_F(Errors, DimensionAboveWhatTheStatesSpan) {
  SubspaceOptions options;
  options.dimension = 31;
  expect_error(forget_, retain_, options, dist::ExitCode::input, {"dimension 31", "30 directions"});
  options.rule = Rule::random;
  expect_error(forget_, retain_, options, dist::ExitCode::input, {"dimension 31", "30 directions"});

  // Forget states of rank 3 within many rows.
  const auto basis = normal_states(3, 3, 30);
  MemoryStates flat = forget_;
  std::vector<float> rows(90);
  basis.read({0, 3}, {0, 30}, rows);
  for (std::int64_t i = 0; i < 40; ++i) {
    for (std::int64_t j = 0; j < 30; ++j) {
      flat.at(i, j) = rows[static_cast<std::size_t>(i % 3 * 30 + j)];
    }
  }
  for (const Rule rule : {Rule::gevp, Rule::forget_pca, Rule::cpca, Rule::retain_complement}) {
    for (const Route route : {Route::feature_space, Route::sample_space}) {
      options.rule = rule;
      options.route = route;
      options.dimension = 4;
      expect_error(flat, retain_, options, dist::ExitCode::input, {"dimension 4", "directions"});
      if (rule == Rule::cpca) continue;
      options.dimension = 3;
      EXPECT_EQ(find_subspace(grid_, flat, retain_, options).k, 3);
    }
  }
}

TEST_F(Errors, EmptyOrZeroOrMismatchedStates) {
  SubspaceOptions options;
  options.dimension = 1;
  const MemoryStates empty(0, 30, {});
  expect_error(empty, retain_, options, dist::ExitCode::input, {"no forget states"});
  expect_error(forget_, empty, options, dist::ExitCode::input, {"no retain states"});
  const MemoryStates zero(4, 30, std::vector<float>(120, 0.0F));
  expect_error(zero, retain_, options, dist::ExitCode::input, {"all forget states are zero"});
  expect_error(forget_, zero, options, dist::ExitCode::input, {"all retain states are zero"});
  expect_error(normal_states(1, 4, 29), retain_, options, dist::ExitCode::input, {"29", "30"});
}

TEST_F(Errors, OptionsOutOfRange) {
  SubspaceOptions options;
  options.ridge = 0;
  expect_error(forget_, retain_, options, dist::ExitCode::usage, {"ridge"});
  options = {};
  options.dimension = -1;
  expect_error(forget_, retain_, options, dist::ExitCode::usage, {"dimension"});
  options = {};
  options.retain_energy = 1.5;
  expect_error(forget_, retain_, options, dist::ExitCode::usage, {"retain_energy"});
}

TEST_F(Errors, GridMustMatchTheRanks) {
  EXPECT_THROW(BlacsGrid(world_, world_.size() + 1, 1), dist::ContractError);
}

// Repeated states make the Gram matrix singular; the ridge must carry that.
TEST_F(Errors, DuplicateRowsAreNoError) {
  MemoryStates doubled = retain_;
  for (std::int64_t i = 0; i < 25; ++i) {
    for (std::int64_t j = 0; j < 30; ++j) doubled.at(i + 25, j) = doubled.at(i, j);
  }
  for (const Rule rule : {Rule::gevp, Rule::cpca, Rule::retain_complement}) {
    SubspaceOptions options;
    options.rule = rule;
    options.dimension = 2;
    options.route = Route::feature_space;
    const auto feature = find_subspace(grid_, forget_, doubled, options);
    options.route = Route::sample_space;
    const auto sample = find_subspace(grid_, forget_, doubled, options);
    EXPECT_LT(
        testing::largest_angle(from_row_major(feature.a, 30, 2), from_row_major(sample.a, 30, 2)),
        1e-6);
  }
}

}  // namespace
}  // namespace mrp::solver
