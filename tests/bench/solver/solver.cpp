// Solves one problem as often and by whom it is told, and prints the seconds of each run.
//
//   mpirun -n RANKS solver_benchmark SPECTRUM N K standard|pencil FOLDER
//
// Writes C, and B of a pencil, to FOLDER/c.f64 and FOLDER/b.f64 [N × N], prints "ready", and then
// reads lines "ours", "pdsyevr", "pdsyevd" or "elpa" until there are no more. A run leaves its
// values [K] and vectors [N × K], column-major, in FOLDER/<name>.values.f64 and .vectors.f64. The
// seconds of a pencil include the Cholesky factorisation.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

#include "dist/error.hpp"
#include "dist/log.hpp"
#include "dist/session.hpp"
#include "peers.hpp"
#include "problem.hpp"
#include "solver/blas_kernels.hpp"
#include "solver/dense.hpp"
#include "solver/elpa_eigensolver.hpp"
#include "solver/generalized.hpp"
#include "solver/lapack_eigensolver.hpp"

namespace {

using namespace mrp;
using namespace mrp::solver;

// The ranks sleep while they wait: others are being timed.
std::string next_command(const dist::Communicator& comm) {
  char line[64] = {};
  if (comm.is_root() && std::fgets(line, sizeof line, stdin) == nullptr) line[0] = '\0';
  MPI_Request request;
  MPI_Ibcast(line, sizeof line, MPI_CHAR, 0, comm.get(), &request);
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0) usleep(1000);
  }
  const std::string command = line;
  return command.substr(0, command.find('\n'));
}

EigenPairs standard(const std::string& name, DistMatrix c, std::int64_t k) {
  if (name == "ours") return top_eigenpairs(std::move(c), k, "benchmark's matrix");
  if (name == "pdsyevr") return lapack_eigenpairs(std::move(c), k, "benchmark's matrix");
  if (name == "pdsyevd") return bench::pdsyevd(c, k);
  if (name == "elpa") {
    if (auto pairs = elpa_eigenpairs(std::move(c), k)) return std::move(*pairs);
    throw dist::NumericalError("ELPA refuses the benchmark's matrix");
  }
  throw dist::InputError("no solver is called " + name);
}

EigenPairs pencil(const std::string& name, DistMatrix c, DistMatrix b, std::int64_t k) {
  cholesky(b, "benchmark's matrix");
  if (name == "ours") return top_pencil_pairs(std::move(c), b, k, "benchmark's pencil");
  reduce_to_standard(c, b, "benchmark's pencil");
  if (name == "elpa") mirror_lower(c);
  EigenPairs pairs = standard(name, std::move(c), k);
  solve_lower(Op::transposed, b, pairs.vectors);
  return pairs;
}

void write(const std::string& path, const std::vector<double>& values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(double)));
}

void write(const std::string& path, const DistMatrix& matrix) {
  const Tall whole = gather(matrix);
  if (matrix.grid().comm().is_root()) write(path, whole.values);
}

double run(const std::string& name, const bench::Problem& problem, std::int64_t k,
           const std::string& folder) {
  const dist::Communicator& comm = problem.c.grid().comm();
  DistMatrix c = problem.c;
  std::optional<DistMatrix> b = problem.b;
  comm.barrier();
  const auto start = std::chrono::steady_clock::now();
  const EigenPairs pairs =
      b ? pencil(name, std::move(c), std::move(*b), k) : standard(name, std::move(c), k);
  comm.barrier();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (comm.is_root()) write(folder + "/" + name + ".values.f64", pairs.values);
  write(folder + "/" + name + ".vectors.f64", pairs.vectors);
  return seconds.count();
}

void serve(char** arguments) {
  const std::int64_t n = std::stoll(arguments[2]), k = std::stoll(arguments[3]);
  const std::string folder = arguments[5];
  const auto world = dist::Communicator::world();
  dist::log::open(world.rank());
  const BlacsGrid grid(world);
  const auto problem =
      bench::make_problem(grid, arguments[1], n, k, std::string(arguments[4]) == "pencil");
  write(folder + "/c.f64", problem.c);
  if (problem.b) write(folder + "/b.f64", *problem.b);
  if (world.is_root()) std::puts("ready");
  std::fflush(stdout);
  for (std::string name = next_command(world); !name.empty(); name = next_command(world)) {
    const double seconds = run(name, problem, k, folder);
    if (world.is_root()) std::printf("%.6f\n", seconds);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  solver::choose_blas_kernels();
  if (argc != 6) dist::abort_job("usage: solver_benchmark SPECTRUM N K standard|pencil FOLDER", 2);
  try {
    const dist::Session session(argc, argv);
    serve(argv);
  } catch (...) {
    dist::abort_job(std::current_exception());
  }
}
