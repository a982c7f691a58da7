#include "jobs/site_states.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "dist/agree.hpp"
#include "support/temp_folder.hpp"

namespace mrp::jobs {
namespace {

constexpr std::int64_t kWidth = 3;
const std::string kSite = "layers.0.o_proj.input";

/// Two retain rows of one text and eight rows of samples, two of each; every value differs.
class SiteStatesTest : public ::testing::Test {
 protected:
  SiteStatesTest() {
    io::StateLayout layout;
    layout.dtype = io::DType::f32;
    layout.positions["retain"] = {{0, 1}, {0, 2}};
    for (std::int64_t i = 0; i < 8; ++i) layout.positions["samples"].push_back({i / 2, 1 + i % 2});
    layout.sites = {{kSite, kWidth, 1}};
    io::StateWriter writer(path(), layout, "f", world_);
    dist::agree(world_, [&] {
      if (!world_.is_root()) return;
      for (const std::string set : {"retain", "samples"}) {
        const std::vector<float> values = states(set);
        writer.write(set, kSite, {0, std::ssize(values) / kWidth}, {0, kWidth},
                     std::as_bytes(std::span(values)));
      }
    });
    writer.finish();
  }

  std::filesystem::path path() const { return folder_.path() / "states.h5"; }

  static std::vector<float> states(const std::string& set) {
    std::vector<float> values(static_cast<std::size_t>((set == "retain" ? 2 : 8) * kWidth));
    std::iota(values.begin(), values.end(), set == "retain" ? 1.0F : 50.0F);
    return values;
  }

  /// Mean of the squares of the first column over the rows.
  static double moment(const std::vector<float>& values) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); i += kWidth) sum += double{values[i]} * values[i];
    return sum * kWidth / static_cast<double>(values.size());
  }

  static std::vector<float> read(const SiteStates& from, dist::Range rows, dist::Range columns) {
    std::vector<float> values(static_cast<std::size_t>(rows.size() * columns.size()));
    from.read(rows, columns, values);
    return values;
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
};

TEST_F(SiteStatesTest, ASetAloneKeepsItsValues) {
  const io::StateReader reader(path());
  const StateSets sets(reader, {"samples"});
  const SiteStates site(reader, sets, kSite);
  EXPECT_EQ(site.width(), kWidth);
  EXPECT_EQ(read(site, {0, 8}, {0, kWidth}), states("samples"));
}

TEST_F(SiteStatesTest, SetsTogetherCountTheSame) {
  const io::StateReader reader(path());
  const StateSets sets(reader, {"retain", "samples"});
  const SiteStates site(reader, sets, kSite);
  ASSERT_EQ(site.rows(), 10);
  const double mean = (moment(states("retain")) + moment(states("samples"))) / 2;
  EXPECT_NEAR(moment(read(site, {0, 10}, {0, kWidth})), mean, 1e-6 * mean);
}

TEST_F(SiteStatesTest, TheirSequencesAreDifferentOnes) {
  const io::StateReader reader(path());
  const StateSets sets(reader, {"retain", "samples"});
  const std::vector<std::int64_t> want{0, 0, 1, 1, 2, 2, 3, 3, 4, 4};
  const auto found = SiteStates(reader, sets, kSite).sequences();
  EXPECT_EQ(std::vector(found.begin(), found.end()), want);
}

TEST_F(SiteStatesTest, ABlockMayHoldRowsOfBoth) {
  const io::StateReader reader(path());
  const StateSets sets(reader, {"retain", "samples"});
  const SiteStates site(reader, sets, kSite);
  const std::vector<float> all = read(site, {0, 10}, {0, kWidth});
  for (const dist::Range rows : {dist::Range{0, 2}, {1, 5}, {2, 10}, {3, 4}}) {
    const std::vector<float> block = read(site, rows, {1, 3});
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t row = static_cast<std::size_t>(rows.begin) + i / 2;
      EXPECT_EQ(block[i], all[row * kWidth + 1 + i % 2]) << rows.begin << " " << i;
    }
  }
}

}  // namespace
}  // namespace mrp::jobs
