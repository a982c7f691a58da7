#include "shard/edit/rounding.hpp"

#include <algorithm>

#include "dist/error.hpp"
#include "shard/edit/kernels.hpp"

namespace mrp::shard {

namespace {

using Floats = Lanes<float>::Vector;
typedef std::int32_t Ints __attribute__((vector_size(kLanes * sizeof(std::int32_t))));

/// The neighbours of x in bf16: `toward` zero and `away` from it; both x if it is representable.
struct Bf16Grid {
  static inline __attribute__((always_inline)) void neighbours(const Floats& x, Floats& toward,
                                                               Floats& away) {
    const Ints bits = reinterpret_cast<Ints>(x);
    const Ints low = bits & 0xffff;
    const Ints cut = bits - low;
    // One more unless low is 0; runs into the exponent where it must.
    const Ints up = cut + ((low + 0xffff) & 0x10000);
    toward = reinterpret_cast<Floats>(cut);
    away = reinterpret_cast<Floats>(up);
  }
};

/// The same for f16, whose subnormal numbers (below 2⁻¹⁴) have the fixed step 2⁻²⁴.
struct F16Grid {
  static inline __attribute__((always_inline)) void neighbours(const Floats& x, Floats& toward,
                                                               Floats& away) {
    const Ints bits = reinterpret_cast<Ints>(x);
    const Ints exponent = bits & 0x7f800000;
    constexpr std::int32_t kSmallest = (127 - 14) << 23;
    const Ints clamped = exponent < kSmallest ? Ints{} + kSmallest : exponent;
    const Ints step_bits = clamped - (10 << 23);
    const Ints inverse_bits = (254 << 23) - step_bits;
    const Floats step = reinterpret_cast<Floats>(step_bits);
    const Floats scaled = x * reinterpret_cast<Floats>(inverse_bits);  // below 2¹¹, exact
    const Floats whole = __builtin_convertvector(__builtin_convertvector(scaled, Ints), Floats);
    toward = whole * step;
    const Floats outward = bits < 0 ? -step : step;
    away = toward == x ? toward : toward + outward;
  }
};

/// `negative` where sign < 0, else `other`. By bits: without AVX-512 GCC compares vectors of this
/// width entry by entry.
inline __attribute__((always_inline)) Floats choose(const Floats& sign, const Floats& negative,
                                                    const Floats& other) {
  const Ints mask = reinterpret_cast<Ints>(sign + 0.0f) >> 31;  // −0 + 0 is 0
  return reinterpret_cast<Floats>((reinterpret_cast<Ints>(negative) & mask) |
                                  (reinterpret_cast<Ints>(other) & ~mask));
}

/// One pass over groups [begin, end). In the first sweep the state does not hold the entries'
/// errors yet (they are 0); later it does, and an entry is judged with its own error taken out.
template <class Grid>
inline __attribute__((always_inline)) void sweep_body(const Panel<float>& n, const float* gram,
                                                      std::int64_t begin, std::int64_t end,
                                                      const Lanes<float>* exact,
                                                      Lanes<float>* error, Lanes<float>* state) {
  for (std::int64_t g = begin; g < end; ++g) {
    const float* products = gram + g * kGroup * kGroup;
    Lanes<float> along[kGroup];  // e · N_j, kept up to date within the group
    Lanes<float> change[kGroup];
    gather(state, n.group(g), n.k(), along);
#pragma GCC unroll 8
    for (std::int64_t b = 0; b < kGroup; ++b) {
      const float length = products[b * kGroup + b];  // ‖N_j‖²
      const Floats x = exact[g * kGroup + b].v;
      const Floats old = error[g * kGroup + b].v;
      Floats toward, away;
      Grid::neighbours(x, toward, away);
      const Floats down = toward - x;
      const Floats up = away - x;
      // ‖e + up N_j‖² < ‖e + down N_j‖², with e freed of the old error
      const Floats others = along[b].v - old * length;
      const Floats gain = (up - down) * (others + (up + down) * (0.5f * length));
      const Floats chosen = choose(gain, up, down);
      change[b].v = chosen - old;
      error[g * kGroup + b].v = chosen;
#pragma GCC unroll 8
      for (std::int64_t c = b + 1; c < kGroup; ++c) {
        along[c].v += change[b].v * products[b * kGroup + c];
      }
    }
    scatter(change, n.group(g), n.k(), state);
  }
}

MRP_VECTOR_CLONES void sweep_bf16(const Panel<float>& n, const float* gram, std::int64_t begin,
                                  std::int64_t end, const Lanes<float>* exact, Lanes<float>* error,
                                  Lanes<float>* state) {
  sweep_body<Bf16Grid>(n, gram, begin, end, exact, error, state);
}
MRP_VECTOR_CLONES void sweep_f16(const Panel<float>& n, const float* gram, std::int64_t begin,
                                 std::int64_t end, const Lanes<float>* exact, Lanes<float>* error,
                                 Lanes<float>* state) {
  sweep_body<F16Grid>(n, gram, begin, end, exact, error, state);
}

typedef std::uint32_t Unsigned __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));

/// Scrambles 32 bits, each input bit into every output bit (constants: C. Wellons, lowbias32).
inline __attribute__((always_inline)) void scramble(Unsigned& x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
}

template <class Grid>
inline __attribute__((always_inline)) void random_body(Lanes<float>* tile, std::int64_t length,
                                                       std::uint32_t first, std::uint32_t seed) {
  Unsigned key;
  for (int lane = 0; lane < kLanes; ++lane) key[lane] = first + static_cast<unsigned>(lane);
  scramble(key);
  key += seed;
  for (std::int64_t j = 0; j < length; ++j) {
    Unsigned bits = key + static_cast<std::uint32_t>(j);
    scramble(bits);
    // Uniform in [0, 1); a signed type converts faster.
    const Floats chance =
        __builtin_convertvector(reinterpret_cast<Ints>(bits >> 8), Floats) * 0x1p-24f;
    const Floats x = tile[j].v;
    Floats toward, away;
    Grid::neighbours(x, toward, away);
    // A representable x has no way to go: 0 / 0 is not above any chance.
    tile[j].v = (x - toward) / (away - toward) > chance ? away : toward;
  }
}

MRP_VECTOR_CLONES void random_bf16(Lanes<float>* tile, std::int64_t length, std::uint32_t first,
                                   std::uint32_t seed) {
  random_body<Bf16Grid>(tile, length, first, seed);
}
MRP_VECTOR_CLONES void random_f16(Lanes<float>* tile, std::int64_t length, std::uint32_t first,
                                  std::uint32_t seed) {
  random_body<F16Grid>(tile, length, first, seed);
}

/// After the first sweep the state is looked at after so many groups.
constexpr std::int64_t kCheckGroups = 256 / kGroup;

}  // namespace

ErrorFeedback::ErrorFeedback(const FoldFactors& factors, io::DType dtype)
    : dtype_(dtype),
      n_(factors.n, factors.width, factors.k),
      gram_(static_cast<std::size_t>(n_.groups() * kGroup * kGroup)),
      state_(static_cast<std::size_t>(factors.k)),
      error_(static_cast<std::size_t>(n_.groups() * kGroup)) {
  MRP_EXPECT(dtype == io::DType::bf16 || dtype == io::DType::f16);
  for (std::int64_t g = 0; g < n_.groups(); ++g) {
    const float* panel = n_.group(g);
    float* products = gram_.data() + g * kGroup * kGroup;
    for (std::int64_t i = 0; i < n_.k(); ++i) {
      for (std::int64_t b = 0; b < kGroup; ++b) {
        for (std::int64_t c = 0; c < kGroup; ++c) {
          products[b * kGroup + c] += panel[i * kGroup + b] * panel[i * kGroup + c];
        }
      }
    }
  }
}

bool ErrorFeedback::good_enough(double target) const {
  double total = 0;
  for (const Lanes<float>& s : state_) {
    for (int lane = 0; lane < kLanes; ++lane) total += double{s.v[lane]} * double{s.v[lane]};
  }
  return total <= target;
}

void ErrorFeedback::sweep(std::int64_t begin, std::int64_t end,
                          std::span<const Lanes<float>> tile) {
  const auto run = dtype_ == io::DType::bf16 ? sweep_bf16 : sweep_f16;
  run(n_, gram_.data(), begin, end, tile.data(), error_.data(), state_.data());
}

void ErrorFeedback::sweep_until_good(int sweeps, std::span<Lanes<float>> tile,
                                     std::span<const Lanes<double>> removed) {
  const double target = kTarget * kTarget * squared_norm(removed);
  for (int i = 0; i < sweeps; ++i) {
    for (std::int64_t g = 0; g < n_.groups(); g += kCheckGroups) {
      if (good_enough(target)) i = sweeps;
      if (i == sweeps) break;
      sweep(g, std::min(g + kCheckGroups, n_.groups()), tile);
    }
  }
  for (std::size_t j = 0; j < tile.size(); ++j) tile[j].v += error_[j].v;
}

void ErrorFeedback::round(std::span<Lanes<float>> tile, std::span<const Lanes<double>> removed) {
  MRP_EXPECT(tile.size() == error_.size() && removed.size() == state_.size());
  std::fill(state_.begin(), state_.end(), Lanes<float>{});
  std::fill(error_.begin(), error_.end(), Lanes<float>{});
  sweep(0, n_.groups(), tile);
  sweep_until_good(kMaxSweeps - 1, tile, removed);
}

void ErrorFeedback::round_from(std::span<const Lanes<float>> chosen, std::span<Lanes<float>> tile,
                               std::span<const Lanes<double>> removed) {
  MRP_EXPECT(tile.size() == error_.size() && removed.size() == state_.size());
  MRP_EXPECT(chosen.size() == tile.size());
  for (std::size_t j = 0; j < tile.size(); ++j) error_[j].v = chosen[j].v - tile[j].v;
  std::vector<Lanes<double>> sums(state_.size(), Lanes<double>{});
  project<float>(n_, 0, error_, sums);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    state_[i].v = __builtin_convertvector(sums[i].v, Floats);
  }
  sweep_until_good(kMaxSweeps, tile, removed);
}

void round_at_random(std::span<Lanes<float>> tile, std::int64_t first, std::uint32_t seed,
                     io::DType dtype) {
  MRP_EXPECT(dtype == io::DType::bf16 || dtype == io::DType::f16);
  const auto round = dtype == io::DType::bf16 ? random_bf16 : random_f16;
  round(tile.data(), std::ssize(tile), static_cast<std::uint32_t>(first), seed);
}

}  // namespace mrp::shard
