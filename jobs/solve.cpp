#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "dist/agree.hpp"
#include "dist/log.hpp"
#include "io/state_store.hpp"
#include "io/subspace_store.hpp"
#include "jobs/continuation.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/site_states.hpp"
#include "jobs/stages.hpp"
#include "jobs/subspace_gather.hpp"
#include "solver/schedule.hpp"
#include "solver/threads.hpp"

namespace mrp::jobs {
namespace {

/// What stands for all that is to be kept: the retain set, and samples where there are any.
std::vector<std::string> retain_sets(const io::StateReader& reader) {
  std::vector<std::string> sets = reader.sets();
  std::erase(sets, "forget");
  return sets;
}

/// All sites of a states file, with the ranks that solve them.
struct Problems {
  io::StateReader reader;
  std::vector<std::string> sites;
  StateSets forget, retain;
  std::vector<int> assignment;  ///< see solver::assign
  io::SubspaceFile earlier;     ///< what is folded already

  Problems(const std::filesystem::path& states, io::SubspaceFile folded,
           const solver::SubspaceOptions& options, int ranks, std::uint64_t memory_limit)
      : reader(states),
        sites(reader.sites()),
        forget(reader, {"forget"}),
        retain(reader, retain_sets(reader)),
        earlier(std::move(folded)) {
    std::vector<solver::Problem> sizes;
    for (const std::string& site : sites) {
      sizes.push_back({reader.width(site), forget.rows() + retain.rows(), options.most_directions(),
                       !options.dimension});
    }
    assignment = solver::assign(sizes, ranks, memory_limit);
  }

  solver::Tall earlier_kernel(const std::string& site) const {
    const auto found = earlier.sites.find(site);
    if (found == earlier.sites.end()) return {};
    const io::StoredSubspace& stored = found->second;
    return solver::from_row_major(stored.a, stored.width, stored.k);
  }

  SolvedSite solve(std::size_t i, const solver::BlacsGrid& grid,
                   const solver::SubspaceOptions& options) const {
    const auto start = std::chrono::steady_clock::now();
    SolvedSite solved{i, 0,
                      solver::find_subspace(grid, SiteStates(reader, forget, sites[i]),
                                            SiteStates(reader, retain, sites[i]), options,
                                            earlier_kernel(sites[i]))};
    solved.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return solved;
  }
};

void log_site(const std::string& site, const SolvedSite& solved) {
  const solver::Subspace& found = solved.subspace;
  std::string eigenvalues =
      found.eigenvalues.empty() ? "" : fmt::format(", top eigenvalue {:.3g}", found.eigenvalues[0]);
  if (found.null_edge > 0) eigenvalues += fmt::format(", null edge {:.3g}", found.null_edge);
  dist::log::info(fmt::format(
      "solve: {} k {}{}, removed of forget {:.2g}, of retain {:.2g}, {:.1f} s", site, found.k,
      eigenvalues, found.forget_removed, found.retain_distortion, solved.seconds));
}

io::SubspaceFile to_file(const Job& job, const std::vector<std::string>& sites,
                         std::vector<SolvedSite> all) {
  io::SubspaceFile file;
  file.fingerprint = job.expected.at("solve");
  file.rule = settings(job.config).at("subspace").dump();
  for (auto& [i, seconds, found] : all) {
    file.sites[sites[i]] = {sites[i],
                            found.width,
                            found.k,
                            std::move(found.a),
                            std::move(found.b),
                            std::move(found.eigenvalues),
                            found.null_edge,
                            found.retain_distortion,
                            found.forget_removed};
  }
  return file;
}

}  // namespace

void solve(Job& job) {
  const dist::Communicator& world = *job.world;
  solver::set_threads(job.threads);
  const std::uint64_t memory = memory_share(world) / 2;
  const Problems problems = dist::agree(world, [&] {
    return Problems(job.work.states(), earlier_subspaces(job.config), job.config.subspace,
                    world.size(), memory);
  });
  const auto on = [&](int rank) {
    return std::count(problems.assignment.begin(), problems.assignment.end(), rank);
  };
  dist::log::info(fmt::format("solve: {} sites, {} of them by all ranks together",
                              problems.sites.size(), on(-1)));

  std::vector<SolvedSite> mine;
  dist::log::Progress progress("solve", on(0) + on(-1), "sites of rank 0");
  solver::solve_assigned(problems.assignment, world,
                         [&](std::size_t i, const solver::BlacsGrid& grid) {
                           SolvedSite solved = problems.solve(i, grid, job.config.subspace);
                           if (problems.assignment[i] >= 0 || world.is_root())
                             mine.push_back(std::move(solved));
                           progress.advance(1);
                         });

  auto all = gather(mine, world);
  dist::agree(world, [&] {
    if (!world.is_root()) return;
    for (const SolvedSite& solved : all) log_site(problems.sites[solved.site], solved);
    to_file(job, problems.sites, std::move(all)).write(job.work.subspaces());
  });
}

}  // namespace mrp::jobs
