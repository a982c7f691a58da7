// From forget and retain states of a site to its projector P = I − A Bᵀ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "solver/blacs_grid.hpp"
#include "solver/state_source.hpp"
#include "solver/tall.hpp"

namespace mrp::solver {

/// How the directions are chosen; C = XᵀX / N uncentred, ε = ridge · tr(C_r) / width.
enum class Rule {
  gevp,               ///< top-k of C_f v = λ (C_r + εI) v; patterns A = (C_r + εI) V
  cpca,               ///< top-k of C_f − α C_r
  retain_complement,  ///< top-k of R C_f R, R = I − U_r U_rᵀ, U_r the top-r of C_r
  forget_complement,  ///< the same with C_f and C_r exchanged, as published programs have it
  forget_pca,         ///< top-k of C_f (a control)
  random              ///< k random orthonormal directions (a control)
};
enum class ProjectorKind { oblique, orthogonal };
/// Which matrices are formed: width × width covariances, or tokens × tokens Gram matrices.
enum class Route { automatic, feature_space, sample_space };

struct SubspaceOptions {
  Rule rule = Rule::gevp;
  ProjectorKind projector = ProjectorKind::oblique;
  /// Fixed k. Empty: as many as eigenvalues of the gevp pencil lie above its null edge
  /// (null_edge.hpp), whatever the rule, because in how many dimensions forget exceeds retain is a
  /// matter of the states, not of the rule.
  std::optional<std::int64_t> dimension;
  std::int64_t max_dimension = 32;  ///< cap of an automatic k
  double ridge = 1e-2;
  double alpha = 1.25;         ///< cpca
  double retain_energy = 0.9;  ///< retain_complement: r holds this share of tr(C_r);
                               ///< forget_complement: of tr(C_f)
  std::uint64_t seed = 0;      ///< random
  Route route = Route::automatic;

  /// Largest k that can be found.
  std::int64_t most_directions() const { return dimension.value_or(max_dimension); }
};

/// A, B row-major [width × k], complete on every rank of the grid.
struct Subspace {
  std::int64_t width = 0;
  std::int64_t k = 0;  ///< columns of A: earlier and new directions
  std::vector<double> a, b;
  /// Of the rule's own matrix, descending; with gevp and an automatic k as many as were looked at,
  /// else k (none for random).
  std::vector<double> eigenvalues;
  double null_edge = 0;          ///< of the gevp pencil; 0 when k was fixed
  double retain_distortion = 0;  ///< E_r‖h − P h‖² / E_r‖h‖²
  double forget_removed = 0;     ///< the same over forget states
  Route route = Route::feature_space;
};

/// Collective over the grid; the kernel also spans the columns of `earlier` [width × m], those of
/// projections that are folded already, so that kernels are nested. The sources must hold the same
/// on all its ranks, each of which reads the parts that it needs. Results are the same on all ranks
/// bit for bit, and so are errors.
/// @throws NumericalError: non-finite states (row and sequence), failed factorisation.
/// @throws InputError: no rows, k above what the states span, too few sequences for an automatic k.
/// @throws UsageError: an option out of range.
Subspace find_subspace(const BlacsGrid& grid, const StateSource& forget, const StateSource& retain,
                       const SubspaceOptions& options, const Tall& earlier = {});

/// The route that find_subspace takes when asked to choose.
Route choose_route(std::int64_t width, std::int64_t forget_rows, std::int64_t retain_rows);

}  // namespace mrp::solver
