// The two products from which fold and rounding are made; always inlined into their callers, which
// are compiled for several instruction sets.
#pragma once

#include <cstdint>

#include "shard/edit/tile.hpp"

namespace mrp::shard {

/// state [k] += Σ_b values[b] · panel[·][b]: eight entries of the vectors enter the k sums.
template <class Real>
inline __attribute__((always_inline)) void scatter(const Lanes<Real>* values, const Real* panel,
                                                   std::int64_t k, Lanes<Real>* state) {
  using Vector = typename Lanes<Real>::Vector;
  Vector v[kGroup];
  for (std::int64_t b = 0; b < kGroup; ++b) v[b] = values[b].v;
  for (std::int64_t i = 0; i < k; ++i) {
    const Real* p = panel + i * kGroup;
    // Two short chains: the additions of one state entry wait for each other.
    const Vector even = (v[0] * p[0] + v[2] * p[2]) + (v[4] * p[4] + v[6] * p[6]);
    const Vector odd = (v[1] * p[1] + v[3] * p[3]) + (v[5] * p[5] + v[7] * p[7]);
    state[i].v += even + odd;
  }
}

/// out[b] = Σ_i state[i] · panel[i][b]: the k sums give eight entries of the vectors.
template <class Real>
inline __attribute__((always_inline)) void gather(const Lanes<Real>* state, const Real* panel,
                                                  std::int64_t k, Lanes<Real>* out) {
  using Vector = typename Lanes<Real>::Vector;
  Vector sum[kGroup] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    const Vector s = state[i].v;
    const Real* p = panel + i * kGroup;
    for (std::int64_t b = 0; b < kGroup; ++b) sum[b] += s * p[b];
  }
  for (std::int64_t b = 0; b < kGroup; ++b) out[b].v = sum[b];
}

}  // namespace mrp::shard
