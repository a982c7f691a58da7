// Projectors P = I − A Bᵀ with Bᵀ A = I_k.
#pragma once

#include "solver/space.hpp"

namespace mrp::solver {

struct Projector {
  Tall a, b;  ///< [width × k]
};

/// Collective over the space's grid. Kernel span(A) of the directions. Oblique: range chosen for
/// least change on retain, B = (C_r + εI)⁻¹A (Aᵀ(C_r + εI)⁻¹A)⁻¹, the only P with this kernel that
/// minimises E_r‖h − Ph‖² + ε‖I − P‖². Orthogonal: A = B = orth(kernel). The largest entry of each
/// column of A is positive.
/// @throws NumericalError if Bᵀ A is not I to 1e-8 or an entry is not finite.
Projector make_projector(Space& space, const Directions& directions, ProjectorKind kind);

/// Collective over the space's grid. E‖h − Ph‖² / E‖h‖² over retain and over forget states, from
/// the moments: E‖A Bᵀ h‖² = tr(AᵀA · Bᵀ C B).
double retain_distortion(Space& space, const Projector& projector);
double forget_removed(Space& space, const Projector& projector);

}  // namespace mrp::solver
