#include "shard/edit/fold.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "dist/error.hpp"
#include "shard/edit/kernels.hpp"
#include "shard/edit/orthonormal.hpp"

namespace mrp::shard {

FoldFactors make_factors(const io::StoredSubspace& subspace, FoldSide side) {
  const bool input = side == FoldSide::input;
  FoldFactors factors{subspace.width, subspace.k, input ? subspace.a : subspace.b, {}};
  const std::vector<double>& m = input ? subspace.b : subspace.a;
  const auto k = static_cast<std::size_t>(subspace.k);
  const std::vector<double> r = orthonormalise(factors.n, subspace.k, subspace.site);
  // N Mᵀ = Q R Mᵀ = Q (M Rᵀ)ᵀ
  factors.m.assign(m.size(), 0.0);
  for (std::size_t row = 0; row < m.size(); row += k) {
    for (std::size_t i = 0; i < k; ++i) {
      double sum = 0;
      for (std::size_t l = i; l < k; ++l) sum += m[row + l] * r[i * k + l];
      factors.m[row + i] = sum;
    }
  }
  return factors;
}

template <class Real>
Panel<Real>::Panel(std::span<const double> matrix, std::int64_t width, std::int64_t k)
    : k_(k), groups_(padded_length(width) / kGroup) {
  MRP_EXPECT(std::ssize(matrix) == width * k);
  data_.assign(static_cast<std::size_t>(groups_ * kGroup * k), Real{});
  for (std::int64_t j = 0; j < width; ++j) {
    for (std::int64_t i = 0; i < k; ++i) {
      data_[static_cast<std::size_t>((j / kGroup * k + i) * kGroup + j % kGroup)] =
          static_cast<Real>(matrix[static_cast<std::size_t>(j * k + i)]);
    }
  }
}

namespace {

template <class Real>
inline __attribute__((always_inline)) void project_body(const Panel<Real>& n, std::int64_t first,
                                                        const Lanes<Real>* tile,
                                                        std::int64_t groups,
                                                        std::int64_t chunk_groups,
                                                        Lanes<Real>* chunk, Lanes<double>* sums) {
  const std::int64_t k = n.k();
  for (std::int64_t begin = 0; begin < groups; begin += chunk_groups) {
    const std::int64_t end = std::min(begin + chunk_groups, groups);
    for (std::int64_t i = 0; i < k; ++i) chunk[i].v = typename Lanes<Real>::Vector{};
    for (std::int64_t g = begin; g < end; ++g) {
      scatter(tile + g * kGroup, n.group(first + g), k, chunk);
    }
    for (std::int64_t i = 0; i < k; ++i) {
      sums[i].v += __builtin_convertvector(chunk[i].v, typename Lanes<double>::Vector);
    }
  }
}

template <class Real>
inline __attribute__((always_inline)) void subtract_body(const Panel<Real>& m,
                                                         const Lanes<Real>* sums,
                                                         Lanes<Real>* tile) {
  Lanes<Real> product[kGroup];
  for (std::int64_t g = 0; g < m.groups(); ++g) {
    gather(sums, m.group(g), m.k(), product);
    for (std::int64_t b = 0; b < kGroup; ++b) tile[g * kGroup + b].v -= product[b].v;
  }
}

/// The largest magnitude as an integer: bit patterns without sign are in the order of the numbers,
/// with infinity and then NaN at the end.
template <class Real, class Integer>
inline __attribute__((always_inline)) bool within_body(const Lanes<Real>* tile, std::int64_t length,
                                                       Real limit) {
  typedef Integer Integers __attribute__((vector_size(kLanes * sizeof(Integer))));
  Integers largest{};
  for (std::int64_t j = 0; j < length; ++j) {
    const Integers size =
        reinterpret_cast<Integers>(tile[j].v) & std::numeric_limits<Integer>::max();
    largest = size > largest ? size : largest;
  }
  bool all = true;
  for (int lane = 0; lane < kLanes; ++lane) all &= largest[lane] <= std::bit_cast<Integer>(limit);
  return all;
}

// target_clones and templates do not go together: one plain function for each type.
MRP_VECTOR_CLONES void project_real(const Panel<float>& n, std::int64_t first,
                                    const Lanes<float>* tile, std::int64_t groups,
                                    std::int64_t chunk_groups, Lanes<float>* chunk,
                                    Lanes<double>* sums) {
  project_body(n, first, tile, groups, chunk_groups, chunk, sums);
}
MRP_VECTOR_CLONES void project_real(const Panel<double>& n, std::int64_t first,
                                    const Lanes<double>* tile, std::int64_t groups,
                                    std::int64_t chunk_groups, Lanes<double>* chunk,
                                    Lanes<double>* sums) {
  project_body(n, first, tile, groups, chunk_groups, chunk, sums);
}
MRP_VECTOR_CLONES void subtract_real(const Panel<float>& m, const Lanes<float>* sums,
                                     Lanes<float>* tile) {
  subtract_body(m, sums, tile);
}
MRP_VECTOR_CLONES void subtract_real(const Panel<double>& m, const Lanes<double>* sums,
                                     Lanes<double>* tile) {
  subtract_body(m, sums, tile);
}

MRP_VECTOR_CLONES bool within_real(const Lanes<float>* tile, std::int64_t length, float limit) {
  return within_body<float, std::int32_t>(tile, length, limit);
}
MRP_VECTOR_CLONES bool within_real(const Lanes<double>* tile, std::int64_t length, double limit) {
  return within_body<double, std::int64_t>(tile, length, limit);
}

}  // namespace

template <class Real>
void project(const Panel<Real>& n, std::int64_t first, std::span<const Lanes<Real>> tile,
             std::span<Lanes<double>> sums, std::int64_t chunk) {
  const std::int64_t groups = std::ssize(tile) / kGroup;
  MRP_EXPECT(first % kGroup == 0 && std::ssize(tile) % kGroup == 0);
  MRP_EXPECT(chunk > 0 && chunk % kGroup == 0);
  MRP_EXPECT(first / kGroup + groups <= n.groups() && std::ssize(sums) == n.k());
  std::vector<Lanes<Real>> of_chunk(sums.size());
  project_real(n, first / kGroup, tile.data(), groups, chunk / kGroup, of_chunk.data(),
               sums.data());
}

template <class Real>
void subtract(const Panel<Real>& m, std::span<const Lanes<double>> sums,
              std::span<Lanes<Real>> tile) {
  MRP_EXPECT(std::ssize(tile) == m.groups() * kGroup && std::ssize(sums) == m.k());
  std::vector<Lanes<Real>> narrow(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      narrow[i].v[lane] = static_cast<Real>(sums[i].v[lane]);
    }
  }
  subtract_real(m, narrow.data(), tile.data());
}

template <class Real>
bool all_within(std::span<const Lanes<Real>> tile, Real limit) {
  return tile.empty() || within_real(tile.data(), std::ssize(tile), limit);
}

double squared_norm(std::span<const Lanes<double>> sums) {
  double total = 0;
  for (const Lanes<double>& s : sums) {
    for (int lane = 0; lane < kLanes; ++lane) total += s.v[lane] * s.v[lane];
  }
  return total;
}

template class Panel<float>;
template class Panel<double>;
template void project(const Panel<float>&, std::int64_t, std::span<const Lanes<float>>,
                      std::span<Lanes<double>>, std::int64_t);
template void project(const Panel<double>&, std::int64_t, std::span<const Lanes<double>>,
                      std::span<Lanes<double>>, std::int64_t);
template void subtract(const Panel<float>&, std::span<const Lanes<double>>,
                       std::span<Lanes<float>>);
template void subtract(const Panel<double>&, std::span<const Lanes<double>>,
                       std::span<Lanes<double>>);
template bool all_within(std::span<const Lanes<float>>, float);
template bool all_within(std::span<const Lanes<double>>, double);

}  // namespace mrp::shard
