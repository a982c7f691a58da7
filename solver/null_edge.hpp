// How large the pencil's eigenvalues are when forget and retain are the same thing.
#pragma once

#include "solver/space.hpp"

namespace mrp::solver {

/// Collective over the space's grid. The value that eigenvalues of C_f v = λ (C_r + εI) v stay
/// below when both sets are drawn from one distribution (in more than 19 of 20 cases), measured on
/// the states themselves.
///
/// Forget and retain are pooled and divided at random, by whole sequences, into two parts of the
/// same sizes as before, each with the same mix of both sets; the pencil between the parts then has
/// the null distribution, with the right sample sizes, ridge and dependence within sequences
/// whatever they are (Wachter's edge ((1+h)/(1−y))² knows none of the last two and ends at y =
/// width/N_r = 1). A signal that the sets differ in lies equally in both parts and cancels. The
/// edge is the largest eigenvalue of three divisions plus the mean distance from the first to the
/// fourth eigenvalue, the scale on which the first fluctuates.
/// @throws InputError if there are fewer than 8 sequences: then nothing can be measured.
double measure_null_edge(Space& space, const Pool& pool);

}  // namespace mrp::solver
