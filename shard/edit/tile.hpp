// Sixteen independent vectors side by side: the unit on which folds and roundings work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "shard/vector_clones.hpp"

namespace mrp::shard {

inline constexpr std::int64_t kLanes = 16;
/// Entries of a vector that the kernels handle together; tiles are padded with zeros to a multiple.
inline constexpr std::int64_t kGroup = 8;

/// Entry j of sixteen vectors. `v` takes element-wise operators. Aligned by hand: without wide
/// registers in the default instruction set the compiler would give it 16 bytes, and the clones
/// expect more.
template <class Real>
struct alignas(kLanes * sizeof(Real)) Lanes {
  typedef Real Vector __attribute__((vector_size(kLanes * sizeof(Real))));
  Vector v;
};

inline std::int64_t padded_length(std::int64_t length) {
  return (length + kGroup - 1) / kGroup * kGroup;
}

/// Entries of sixteen vectors, [padded length]. Real: float for 16-bit tensors, double for f32
/// ones.
template <class Real>
using Tile = std::vector<Lanes<Real>>;

/// A packed matrix of a 16-bit or f32 type in memory, and the row-major place of its parts.
struct MatrixBytes {
  io::DType dtype{};
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::span<std::byte> bytes;      ///< [rows × columns]
  std::span<const float> delta{};  ///< [rows × columns], added to what is loaded; empty: nothing
};

/// Sixteen rows from `first` on become lanes; lanes beyond the last row are zero. A change is added
/// in Real.
template <class Real>
void load_rows(const MatrixBytes& matrix, std::int64_t first, Tile<Real>& tile);
/// Sixteen columns from `first` on become lanes.
template <class Real>
void load_columns(const MatrixBytes& matrix, std::int64_t first, Tile<Real>& tile);

/// The way back: values that the type represents exactly are kept, others are rounded to nearest.
template <class Real>
void store_rows(const Tile<Real>& tile, std::int64_t first, const MatrixBytes& matrix);
template <class Real>
void store_columns(const Tile<Real>& tile, std::int64_t first, const MatrixBytes& matrix);

}  // namespace mrp::shard
