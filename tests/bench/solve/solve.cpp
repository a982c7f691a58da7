// Writes hidden states, or solves all sites of a states file, and prints how long that took.
//
//   mpirun -n RANKS solve_benchmark write FILE FORGET RETAIN WIDTH…
//   mpirun -n RANKS solve_benchmark spread|together FILE DIMENSION|automatic FOLDER
//   mpirun -n RANKS solve_benchmark moments FILE
//
// spread: each rank its own sites, then the rest by all ranks, as `mrp solve` does; together: all
// by all ranks, one after the other. Leaves the kernel of a site [width × k], row-major, in
// FOLDER/<way>.<site>.f64 and prints JSON: `seconds` with reading; `memory`, the most MiB that a
// rank took on top of what it had before; `k`, the columns of all kernels; `peak`, floating-point
// operations a second of a rank while all multiply at once. moments: the covariance of all rows of
// the first site; `seconds` and `peak`.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "dist/error.hpp"
#include "dist/session.hpp"
#include "jobs/site_states.hpp"
#include "solver/blacs_grid.hpp"
#include "solver/blas_kernels.hpp"
#include "solver/moments.hpp"
#include "solver/pool.hpp"
#include "solver/schedule.hpp"
#include "solver/subspace.hpp"
#include "solver/threads.hpp"
#include "states.hpp"

namespace {

using namespace mrp;

double peak_mebibytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// Collective over `comm`. Seconds until all ranks are through.
template <class Work>
double timed(const dist::Communicator& comm, Work&& work) {
  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  work();
  comm.barrier();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Of the fastest of a few products that are as deep as those of a large Gram matrix.
double peak_flops(const dist::Communicator& comm, std::int64_t rows) {
  constexpr std::int64_t kDepth = 680;
  const std::int64_t side = std::min<std::int64_t>(rows, 2048);
  const std::vector<double> a(static_cast<std::size_t>(side * kDepth), 1.0), b = a;
  std::vector<double> c(static_cast<std::size_t>(side * side));
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 8; ++repeat) {
    seconds.push_back(timed(comm, [&] {
      solver::gemm(solver::Op::transposed, solver::Op::none, side, side, kDepth, 1, a.data(),
                   kDepth, b.data(), kDepth, 1, c.data(), side);
    }));
  }
  const auto operations = static_cast<double>(2 * side * side * kDepth);
  return operations / *std::min_element(seconds.begin(), seconds.end());
}

std::vector<int> assign(const io::StateReader& reader, const std::string& way, int ranks) {
  const auto sites = reader.sites();
  if (way == "together") return std::vector<int>(sites.size(), -1);
  std::vector<solver::Problem> problems;
  for (const std::string& site : sites)
    problems.push_back({reader.width(site), reader.rows("forget") + reader.rows("retain")});
  const auto memory = ::sysconf(_SC_PHYS_PAGES) * ::sysconf(_SC_PAGESIZE) / 2 / ranks;
  return solver::assign(problems, ranks, static_cast<std::uint64_t>(memory));
}

using Solved = std::vector<std::pair<std::string, solver::Subspace>>;

/// What this rank took part in.
Solved solve(const io::StateReader& reader, const std::vector<int>& assignment,
             const dist::Communicator& world, const solver::SubspaceOptions& options) {
  Solved solved;
  const auto sites = reader.sites();
  const jobs::StateSets forget_set(reader, {"forget"}), retain_set(reader, {"retain"});
  solver::solve_assigned(assignment, world, [&](std::size_t i, const solver::BlacsGrid& grid) {
    const jobs::SiteStates forget(reader, forget_set, sites[i]);
    const jobs::SiteStates retain(reader, retain_set, sites[i]);
    auto subspace = solver::find_subspace(grid, forget, retain, options);
    if (assignment[i] >= 0 || world.is_root()) solved.emplace_back(sites[i], std::move(subspace));
  });
  return solved;
}

void write(const std::string& path, const std::vector<double>& values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(double)));
}

void write_file(std::span<char*> arguments, const dist::Communicator& comm) {
  std::vector<std::int64_t> widths;
  for (const char* width : arguments.subspan(5)) widths.push_back(std::stoll(width));
  const std::int64_t forget = std::stoll(arguments[3]), retain = std::stoll(arguments[4]);
  bench::write_states(arguments[2], forget, retain, widths, comm);
}

void time_moments(std::span<char*> arguments, const dist::Communicator& comm) {
  const io::StateReader reader(arguments[2]);
  const jobs::StateSets forget_set(reader, {"forget"}), retain_set(reader, {"retain"});
  const std::string site = reader.sites().front();
  const jobs::SiteStates forget(reader, forget_set, site), retain(reader, retain_set, site);
  const solver::Pool pool(forget, retain);
  const solver::RowMask all(static_cast<std::size_t>(pool.rows()), 1);
  const solver::BlacsGrid grid(comm);
  const std::int64_t block = solver::choose_block(grid, pool.width());
  const double seconds = timed(comm, [&] { solver::covariance_sum(grid, pool, all, block); });
  const double peak = comm.all_reduce(peak_flops(comm, pool.width()), dist::ReduceOp::min);
  if (comm.is_root()) fmt::print("{{\"seconds\": {}, \"peak\": {}}}\n", seconds, peak);
}

void time_solve(std::span<char*> arguments, const dist::Communicator& comm) {
  solver::SubspaceOptions options;
  const std::string way = arguments[1], dimension = arguments[3], folder = arguments[4];
  if (dimension != "automatic") options.dimension = std::stoll(dimension);

  const io::StateReader reader(arguments[2]);
  const auto assignment = assign(reader, way, comm.size());
  const double idle = peak_mebibytes();
  Solved solved;
  const double seconds = timed(comm, [&] { solved = solve(reader, assignment, comm, options); });
  const double memory = comm.all_reduce(peak_mebibytes() - idle, dist::ReduceOp::max);
  std::int64_t k = 0;
  for (const auto& [site, subspace] : solved) {
    write(fmt::format("{}/{}.{}.f64", folder, way, site), subspace.a);
    k += subspace.k;
  }
  k = comm.all_reduce(k);
  const double peak = comm.all_reduce(peak_flops(comm, reader.rows("retain")), dist::ReduceOp::min);
  if (comm.is_root()) {
    fmt::print(R"({{"seconds": {}, "memory": {}, "k": {}, "peak": {}}})"
               "\n",
               seconds, memory, k, peak);
  }
}

}  // namespace

int main(int argc, char** argv) {
  solver::choose_blas_kernels();
  try {
    const dist::Session session(argc, argv);
    const std::string way = argc < 3 ? "" : argv[1];
    if (argc < (way == "moments" ? 3 : 5)) {
      throw dist::UsageError("write|spread|together|moments FILE …: see solve.cpp");
    }
    solver::set_threads(session.threads());
    const auto run = way == "write" ? write_file : way == "moments" ? time_moments : time_solve;
    run({argv, static_cast<std::size_t>(argc)}, dist::Communicator::world());
  } catch (...) {
    dist::abort_job(std::current_exception());
  }
}
