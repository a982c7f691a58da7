#include "jobs/confinement.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <utility>

#include "dist/error.hpp"
#include "dist/log.hpp"
#include "solver/dense.hpp"
#include "solver/generalized.hpp"
#include "solver/schedule.hpp"

namespace mrp::jobs {
namespace {

/// Eigenvalues, descending, with a vector each.
struct Pairs {
  std::vector<double> values;
  solver::Tall vectors;
};

using Solve = std::function<solver::EigenPairs(std::size_t, const solver::BlacsGrid&)>;

/// What `solve` finds for each problem, on all ranks: solved by one of them, or by all together
/// where that takes too long or too much memory.
std::vector<Pairs> solve_dealt(const std::vector<std::int64_t>& widths, const Solvers& solvers,
                               const Solve& solve) {
  const dist::Communicator& comm = solvers.ranks;
  std::vector<solver::Problem> sizes;
  for (const std::int64_t width : widths) sizes.push_back({width, width, width});
  const std::vector<int> owners = solver::assign(sizes, comm.size(), solvers.memory);
  const auto on = [&](int rank) { return std::count(owners.begin(), owners.end(), rank); };
  std::vector<Pairs> found(widths.size());
  dist::log::Progress progress("subspaces", on(comm.rank()) + on(-1), "sites of a rank");
  solver::solve_assigned(owners, comm, [&](std::size_t i, const solver::BlacsGrid& grid) {
    solver::EigenPairs pairs = solve(i, grid);
    found[i] = {std::move(pairs.values), solver::gather(pairs.vectors)};
    progress.advance(1);
  });
  for (std::size_t i = 0; i < widths.size(); ++i) {
    if (owners[i] < 0) continue;
    std::int64_t count = std::ssize(found[i].values);
    comm.broadcast(std::span(&count, 1), owners[i]);
    found[i].values.resize(static_cast<std::size_t>(count));
    if (comm.rank() != owners[i]) found[i].vectors = solver::Tall(widths[i], count);
    comm.broadcast(std::span(found[i].values), owners[i]);
    comm.broadcast(std::span(found[i].vectors.values), owners[i]);
  }
  return found;
}

/// On the grid, in fp64, scaled to mean eigenvalue 1; zero stays zero.
solver::DistMatrix scaled(const solver::BlacsGrid& grid, const torch::Tensor& moments) {
  const std::int64_t width = moments.size(0);
  const torch::Tensor host = moments.to(torch::kCPU, torch::kFloat64).contiguous();
  const double mean = host.trace().item<double>() / static_cast<double>(width);
  if (!std::isfinite(mean)) {
    throw dist::NumericalError(
        "second moments of hidden states or gradients are NaN or Inf; check the checkpoint, or set "
        "compute: fp32");
  }
  solver::Tall whole(width, width);  // symmetric: rows are columns
  const double* values = host.const_data_ptr<double>();
  std::copy(values, values + width * width, whole.values.begin());
  solver::DistMatrix matrix = solver::scatter(grid, whole, solver::choose_block(grid, width));
  solver::scale(matrix, 1 / std::max(mean, std::numeric_limits<double>::min()));
  return matrix;
}

/// fp32 [width × k], where the moments were.
torch::Tensor to_tensor(const solver::Tall& vectors, const torch::Tensor& moments) {
  const auto fp64 = torch::TensorOptions(torch::kFloat64);
  auto* data = const_cast<double*>(vectors.values.data());  // from_blob takes nothing else
  return torch::from_blob(data, {vectors.columns, vectors.rows}, fp64)
      .t()
      .to(moments.device(), torch::kFloat32)
      .contiguous();
}

/// Of the pencil, relative to the mean eigenvalue of the retain moments.
constexpr double kRidge = 1e-2;

std::vector<std::int64_t> widths_of(const std::vector<torch::Tensor>& moments) {
  std::vector<std::int64_t> widths;
  for (const torch::Tensor& of_site : moments) widths.push_back(of_site.size(0));
  return widths;
}

}  // namespace

std::int64_t confined_directions(std::int64_t width) {
  constexpr std::int64_t kAll = 2048;
  return width > kAll ? width / 8 : width;
}

std::vector<shard::Confinement> soft_confinements(const std::vector<torch::Tensor>& moments,
                                                  double softness, const Solvers& solvers) {
  const auto solve = [&](std::size_t i, const solver::BlacsGrid& grid) {
    return solver::top_eigenpairs(scaled(grid, moments[i]), confined_directions(moments[i].size(0)),
                                  "second moments");
  };
  std::vector<shard::Confinement> result;
  const std::vector<Pairs> all = solve_dealt(widths_of(moments), solvers, solve);
  for (std::size_t i = 0; i < all.size(); ++i) {
    torch::Tensor top = torch::tensor(all[i].values, torch::kFloat64).clamp_min(0.0);
    const torch::Tensor damping = 1.0 - torch::sqrt(softness / (top + softness));
    result.push_back(
        {to_tensor(all[i].vectors, moments[i]), damping.to(moments[i].device(), torch::kFloat32)});
  }
  return result;
}

std::vector<torch::Tensor> low_subspaces(const std::vector<torch::Tensor>& forget,
                                         const std::vector<torch::Tensor>& retain, std::int64_t k,
                                         const Solvers& solvers) {
  const auto solve = [&](std::size_t i, const solver::BlacsGrid& grid) {
    solver::DistMatrix factor = scaled(grid, retain[i]);
    solver::shift_diagonal(factor, kRidge);
    solver::cholesky(factor, "second moments of the retain set");
    return solver::top_pencil_pairs(scaled(grid, forget[i]), factor, std::min(k, retain[i].size(0)),
                                    "pencil of second moments");
  };
  std::vector<torch::Tensor> result;
  const std::vector<Pairs> all = solve_dealt(widths_of(retain), solvers, solve);
  for (std::size_t i = 0; i < all.size(); ++i) {
    result.push_back(to_tensor(solver::orthonormal(all[i].vectors), retain[i]));
  }
  return result;
}

std::vector<shard::Projector> low_projectors(const std::vector<torch::Tensor>& forget,
                                             const std::vector<torch::Tensor>& retain,
                                             std::int64_t k, const Solvers& solvers) {
  std::vector<shard::Projector> result;
  const std::vector<torch::Tensor> all = low_subspaces(forget, retain, k, solvers);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const torch::Tensor ridge = kRidge * retain[i].diagonal().mean();
    const torch::Tensor a = torch::matmul(retain[i], all[i]) + ridge * all[i];
    result.push_back({a / torch::linalg_vector_norm(a, 2, 0), all[i]});
  }
  return result;
}

}  // namespace mrp::jobs
