#include "shard/model/fused_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "shard/vector_clones.hpp"

#define MRP_INLINE inline __attribute__((always_inline))

namespace mrp::shard::kernels {
namespace {

MRP_INLINE float wide(io::bf16 x) {
  return io::bf16_to_float(x);
}
MRP_INLINE float wide(float x) {
  return x;
}

template <class T>
MRP_INLINE T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return io::float_to_bf16(x);
  }
}

/// Rounded as if stored as T.
template <class T>
MRP_INLINE float stored(float x) {
  return wide(narrow<T>(x));
}

/// eˣ within 2 ulp for |x| < 83: x = n ln 2 + r, a polynomial of r (Cephes' expf). Beyond, it stays
/// at about 2^±120: neither zero nor infinity, nor a denormal number, which would be slow.
MRP_INLINE float exponential(float x) {
  constexpr float kHighLn2 = 0.693359375f, kLowLn2 = -2.12194440e-4f, kLog2E = 1.44269504f;
  constexpr float kRound = 12582912.0f;  // 1.5 · 2²³: adding it rounds to whole numbers
  float n = (x * kLog2E + kRound) - kRound;
  n = n < -120.0f ? -120.0f : n;
  n = n > 120.0f ? 120.0f : n;
  float r = x - n * kHighLn2 - n * kLowLn2;
  r = r < -0.35f ? -0.35f : r;
  r = r > 0.35f ? 0.35f : r;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

template <class T>
MRP_INLINE void rms_norm_body(const T* x, const T* weight, float eps, std::int64_t rows,
                              std::int64_t width, T* y, float* inverse) {
  for (std::int64_t i = 0; i < rows; ++i, x += width, y += width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < width; ++j) sum += wide(x[j]) * wide(x[j]);
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    inverse[i] = scale;
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      y[j] = narrow<T>(wide(weight[j]) * stored<T>(wide(x[j]) * scale));
    }
  }
}

template <class T>
MRP_INLINE void rms_norm_gradient_body(const T* dy, const T* x, const T* weight,
                                       const float* inverse, std::int64_t rows, std::int64_t width,
                                       T* dx) {
  for (std::int64_t i = 0; i < rows; ++i, dy += width, x += width, dx += width) {
    const float scale = inverse[i];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < width; ++j) sum += wide(dy[j]) * wide(weight[j]) * wide(x[j]);
    const float along = sum * scale * scale / static_cast<float>(width);
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      dx[j] = narrow<T>(scale * (wide(dy[j]) * wide(weight[j]) - wide(x[j]) * along));
    }
  }
}

template <class T>
MRP_INLINE void gated_silu_body(const T* gate_up, std::int64_t rows, std::int64_t width, T* y) {
  for (std::int64_t i = 0; i < rows; ++i, gate_up += 2 * width, y += width) {
    const T *gate = gate_up, *up = gate_up + width;
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      const float g = wide(gate[j]);
      y[j] = narrow<T>(stored<T>(g / (1.0f + exponential(-g))) * wide(up[j]));
    }
  }
}

template <class T>
MRP_INLINE void gated_silu_gradient_body(const T* dy, const T* gate_up, std::int64_t rows,
                                         std::int64_t width, T* dgate_up) {
  for (std::int64_t i = 0; i < rows;
       ++i, gate_up += 2 * width, dgate_up += 2 * width, dy += width) {
    const T *gate = gate_up, *up = gate_up + width;
    T *dgate = dgate_up, *dup = dgate_up + width;
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      const float g = wide(gate[j]), d = wide(dy[j]);
      const float sigmoid = 1.0f / (1.0f + exponential(-g));
      dup[j] = narrow<T>(d * stored<T>(g * sigmoid));
      dgate[j] = narrow<T>(d * wide(up[j]) * sigmoid * (1.0f + g * (1.0f - sigmoid)));
    }
  }
}

template <class T>
MRP_INLINE void rotate_body(Vectors<const T> x, const T* cos, const T* sin, std::int64_t heads,
                            std::int64_t dim, Vectors<T> y) {
  const std::int64_t half = dim / 2;
  for (; heads > 0; --heads, x.data += x.stride, y.data += y.stride) {
#pragma omp simd
    for (std::int64_t j = 0; j < half; ++j) {
      const float a = wide(x.data[j]), b = wide(x.data[j + half]);
      y.data[j] = narrow<T>(stored<T>(a * wide(cos[j])) + stored<T>(-b * wide(sin[j])));
      y.data[j + half] =
          narrow<T>(stored<T>(b * wide(cos[j + half])) + stored<T>(a * wide(sin[j + half])));
    }
  }
}

template <class T>
MRP_INLINE void rotate_gradient_body(Vectors<const T> dy, const T* cos, const T* sin,
                                     std::int64_t heads, std::int64_t dim, Vectors<T> dx) {
  const std::int64_t half = dim / 2;
  for (; heads > 0; --heads, dy.data += dy.stride, dx.data += dx.stride) {
#pragma omp simd
    for (std::int64_t j = 0; j < half; ++j) {
      const float a = wide(dy.data[j]), b = wide(dy.data[j + half]);
      dx.data[j] = narrow<T>(a * wide(cos[j]) + b * wide(sin[j + half]));
      dx.data[j + half] = narrow<T>(b * wide(cos[j + half]) - a * wide(sin[j]));
    }
  }
}

/// Entries begin ≤ j < end.
struct Segment {
  std::int64_t begin, end;
};

/// What row i sees, and between and behind which everything is 0.
struct Segments {
  Segment parts[2];
};

MRP_INLINE Segments segments(Seen seen, std::int64_t i, std::int64_t length) {
  const std::int64_t slot = i % length;
  if (seen.ranges == nullptr) return {{{0, 0}, {0, slot + 1}}};
  const std::int32_t* r = seen.ranges + 3 * (i / seen.rows_of_sequence * length + slot);
  return {{{r[0], r[1]}, {r[2], slot + 1}}};
}

template <class T>
MRP_INLINE void clear_unseen(const Segments& all, std::int64_t length, T* y) {
  std::fill(y, y + all.parts[0].begin, T{});
  std::fill(y + all.parts[0].end, y + all.parts[1].begin, T{});
  std::fill(y + all.parts[1].end, y + length, T{});
}

template <class T>
MRP_INLINE void causal_softmax_body(const T* x, float scale, Seen seen, std::int64_t first,
                                    std::int64_t rows, std::int64_t length, float* e, T* y) {
  for (std::int64_t i = first; i < first + rows; ++i, x += length, y += length) {
    const Segments all = segments(seen, i, length);
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    for (const Segment part : all.parts) {
#pragma omp simd reduction(max : largest)
      for (std::int64_t j = part.begin; j < part.end; ++j) {
        const float value = scale * wide(x[j]);
        largest = value > largest ? value : largest;
      }
    }
    for (const Segment part : all.parts) {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = part.begin; j < part.end; ++j) {
        e[j] = exponential(scale * wide(x[j]) - largest);
        sum += e[j];
      }
    }
    const float inverse = 1.0f / sum;
    clear_unseen(all, length, y);
    for (const Segment part : all.parts) {
#pragma omp simd
      for (std::int64_t j = part.begin; j < part.end; ++j) y[j] = narrow<T>(e[j] * inverse);
    }
  }
}

template <class T>
MRP_INLINE void causal_softmax_gradient_body(const T* dy, const T* y, float scale, Seen seen,
                                             std::int64_t first, std::int64_t rows,
                                             std::int64_t length, T* dx) {
  for (std::int64_t i = first; i < first + rows; ++i, dy += length, y += length, dx += length) {
    const Segments all = segments(seen, i, length);
    float sum = 0;
    for (const Segment part : all.parts) {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = part.begin; j < part.end; ++j) sum += wide(dy[j]) * wide(y[j]);
    }
    clear_unseen(all, length, dx);
    for (const Segment part : all.parts) {
#pragma omp simd
      for (std::int64_t j = part.begin; j < part.end; ++j) {
        dx[j] = narrow<T>(scale * wide(y[j]) * (wide(dy[j]) - sum));
      }
    }
  }
}

}  // namespace

// Templates cannot be cloned, their specialisations can.
#define MRP_CLONES_OF(T)                                                                          \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void rms_norm(const T* x, const T* weight, float eps, std::int64_t rows,      \
                                  std::int64_t width, T* y, float* inverse) {                     \
    rms_norm_body(x, weight, eps, rows, width, y, inverse);                                       \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void rms_norm_gradient(const T* dy, const T* x, const T* weight,              \
                                           const float* inverse, std::int64_t rows,               \
                                           std::int64_t width, T* dx) {                           \
    rms_norm_gradient_body(dy, x, weight, inverse, rows, width, dx);                              \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void gated_silu(const T* gate_up, std::int64_t rows, std::int64_t width,      \
                                    T* y) {                                                       \
    gated_silu_body(gate_up, rows, width, y);                                                     \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void gated_silu_gradient(const T* dy, const T* gate_up, std::int64_t rows,    \
                                             std::int64_t width, T* dgate_up) {                   \
    gated_silu_gradient_body(dy, gate_up, rows, width, dgate_up);                                 \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void rotate(Vectors<const T> x, const T* cos, const T* sin,                   \
                                std::int64_t heads, std::int64_t dim, Vectors<T> y) {             \
    rotate_body(x, cos, sin, heads, dim, y);                                                      \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void rotate_gradient(Vectors<const T> dy, const T* cos, const T* sin,         \
                                         std::int64_t heads, std::int64_t dim, Vectors<T> dx) {   \
    rotate_gradient_body(dy, cos, sin, heads, dim, dx);                                           \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void causal_softmax(const T* x, float scale, Seen seen, std::int64_t first,   \
                                        std::int64_t rows, std::int64_t length, float* room,      \
                                        T* y) {                                                   \
    causal_softmax_body(x, scale, seen, first, rows, length, room, y);                            \
  }                                                                                               \
  template <>                                                                                     \
  MRP_VECTOR_CLONES void causal_softmax_gradient(const T* dy, const T* y, float scale, Seen seen, \
                                                 std::int64_t first, std::int64_t rows,           \
                                                 std::int64_t length, T* dx) {                    \
    causal_softmax_gradient_body(dy, y, scale, seen, first, rows, length, dx);                    \
  }

MRP_CLONES_OF(float)
MRP_CLONES_OF(io::bf16)

}  // namespace mrp::shard::kernels
