// Loops over rows in memory, for bf16 and fp32, compiled for several instruction sets.
#pragma once

#include <cstdint>

#include "io/dtype.hpp"

namespace mrp::shard::kernels {

/// y [rows × width] of x; inverse [rows] = 1 / √(mean(x²) + eps).
template <class T>
void rms_norm(const T* x, const T* weight, float eps, std::int64_t rows, std::int64_t width, T* y,
              float* inverse);
/// dx of dy, both [rows × width].
template <class T>
void rms_norm_gradient(const T* dy, const T* x, const T* weight, const float* inverse,
                       std::int64_t rows, std::int64_t width, T* dx);

/// y [rows × width] of gate_up [rows × 2 width].
template <class T>
void gated_silu(const T* gate_up, std::int64_t rows, std::int64_t width, T* y);
template <class T>
void gated_silu_gradient(const T* dy, const T* gate_up, std::int64_t rows, std::int64_t width,
                         T* dgate_up);

/// Vectors that begin `stride` elements apart.
template <class T>
struct Vectors {
  T* data;
  std::int64_t stride;
};

/// y = x ⊙ cos + (−x₂, x₁) ⊙ sin for each of `heads` vectors x = (x₁, x₂) [dim].
template <class T>
void rotate(Vectors<const T> x, const T* cos, const T* sin, std::int64_t heads, std::int64_t dim,
            Vectors<T> y);
template <class T>
void rotate_gradient(Vectors<const T> dy, const T* cos, const T* sin, std::int64_t heads,
                     std::int64_t dim, Vectors<T> dx);

/// What the rows of attention scores see.
struct Seen {
  /// [sequences × length × 3], row i the entries from the first number of slot i mod length to
  /// before the second, and from the third on up to i mod length; null: all up to i mod length.
  const std::int32_t* ranges;
  std::int64_t rows_of_sequence;
};

/// Rows `first` to `first + rows` of softmax(scale · x) [× length], each over what it sees.
/// `room` [length] is overwritten.
template <class T>
void causal_softmax(const T* x, float scale, Seen seen, std::int64_t first, std::int64_t rows,
                    std::int64_t length, float* room, T* y);
template <class T>
void causal_softmax_gradient(const T* dy, const T* y, float scale, Seen seen, std::int64_t first,
                             std::int64_t rows, std::int64_t length, T* dx);

}  // namespace mrp::shard::kernels
