// Products, factorisations and triangular solves of block-cyclic matrices; LAPACK where one rank
// holds all. Matrices of one call lie on the same grid with the same block size. Symmetric matrices
// keep both triangles unless said otherwise. `name` is how messages call the matrix.
#pragma once

#include <string_view>
#include <vector>

#include "dist/partition.hpp"
#include "solver/dist_matrix.hpp"

namespace mrp::solver {

/// Collective over the grid. c = alpha · op(a) op(b) + beta · c.
void multiply(Op op_a, Op op_b, double alpha, const DistMatrix& a, const DistMatrix& b, double beta,
              DistMatrix& c);

/// Collective over the grid. The upper triangle becomes the mirror of the lower one.
void mirror_lower(DistMatrix& a);

/// Not collective. a += shift · I.
void shift_diagonal(DistMatrix& a, double shift);

/// Not collective. a = factor · a.
void scale(DistMatrix& a, double factor);

/// Not collective. a += factor · b, shapes equal.
void add(DistMatrix& a, double factor, const DistMatrix& b);

/// Collective over the grid. The diagonal, on every rank.
std::vector<double> diagonal(const DistMatrix& a);

/// Collective over the grid.
double trace(const DistMatrix& a);

/// Collective over the grid. Lower Cholesky factor in the lower triangle of `a`; the upper is left.
/// @throws NumericalError if `a` is not positive definite.
void cholesky(DistMatrix& a, std::string_view name);

/// Collective over the grid. a = L⁻¹ a L⁻ᵀ in the lower triangle, L the lower triangle of `l`.
void reduce_to_standard(DistMatrix& a, const DistMatrix& l, std::string_view name);

/// Collective over the grid. b = op(L)⁻¹ b.
void solve_lower(Op op, const DistMatrix& l, DistMatrix& b);

/// Collective over the grid. a · v, complete on every rank.
Tall product(const DistMatrix& a, const Tall& v);

/// Collective over the grid. op(a[rows, columns]) times the rows of v that it meets (`columns`, or
/// `rows` if transposed), complete on every rank. v is as tall as the whole of op(a) is wide.
Tall product(Op op, const DistMatrix& a, dist::Range rows, dist::Range columns, const Tall& v);

/// Collective over the grid. Throws on all ranks alike. `info` as LAPACK and ScaLAPACK return it.
/// @throws NumericalError naming routine, argument and matrix, unless info is 0.
void check_info(const dist::Communicator& comm, int info, std::string_view routine,
                std::string_view matrix);

}  // namespace mrp::solver
