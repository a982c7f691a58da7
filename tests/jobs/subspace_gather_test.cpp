#include "jobs/subspace_gather.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace mrp::jobs {
namespace {

SolvedSite make_site(std::size_t site, std::int64_t width, std::int64_t k) {
  SolvedSite solved{site, 0.5 * static_cast<double>(site), {}};
  solver::Subspace& found = solved.subspace;
  found.width = width;
  found.k = k;
  found.a.resize(static_cast<std::size_t>(width * k));
  std::iota(found.a.begin(), found.a.end(), 1.0 / static_cast<double>(site + 3));
  found.b.assign(found.a.rbegin(), found.a.rend());
  found.eigenvalues.assign(static_cast<std::size_t>(k) + 2, 1.0 / 3.0);
  found.null_edge = 1.5;
  found.retain_distortion = 0.25;
  found.forget_removed = 0.75;
  found.route = solver::Route::sample_space;
  return solved;
}

TEST(SubspaceGatherTest, BringsAllSitesToRankZeroBitForBit) {
  const auto world = dist::Communicator::world();
  constexpr std::size_t kSites = 7;
  // Dealt in reverse, so that the order of arrival is not the order of the sites; the last rank may
  // have none.
  std::vector<SolvedSite> mine;
  for (std::size_t i = kSites; i-- > 0;) {
    if (i % static_cast<std::size_t>(world.size()) == static_cast<std::size_t>(world.rank())) {
      mine.push_back(
          make_site(i, 5 + static_cast<std::int64_t>(i), static_cast<std::int64_t>(i % 3)));
    }
  }
  const auto all = gather(mine, world);
  ASSERT_EQ(all.size(), world.is_root() ? kSites : 0);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const SolvedSite want =
        make_site(i, 5 + static_cast<std::int64_t>(i), static_cast<std::int64_t>(i % 3));
    EXPECT_EQ(all[i].site, i);
    EXPECT_EQ(all[i].seconds, want.seconds);
    EXPECT_EQ(all[i].subspace.width, want.subspace.width);
    EXPECT_EQ(all[i].subspace.k, want.subspace.k);
    EXPECT_EQ(all[i].subspace.a, want.subspace.a);
    EXPECT_EQ(all[i].subspace.b, want.subspace.b);
    EXPECT_EQ(all[i].subspace.eigenvalues, want.subspace.eigenvalues);
    EXPECT_EQ(all[i].subspace.null_edge, want.subspace.null_edge);
    EXPECT_EQ(all[i].subspace.retain_distortion, want.subspace.retain_distortion);
    EXPECT_EQ(all[i].subspace.forget_removed, want.subspace.forget_removed);
    EXPECT_EQ(all[i].subspace.route, want.subspace.route);
  }
}

}  // namespace
}  // namespace mrp::jobs
