#include "shard/edit/tile.hpp"

#include <algorithm>
#include <cstring>

#include "dist/error.hpp"

namespace mrp::shard {

namespace {

/// Element types as stored, with their conversions.
struct Bf16 {
  using Stored = io::bf16;
  static float widen(Stored s) { return io::bf16_to_float(s); }
  static Stored narrow(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    // Values are finite here (checked before), so the carry may run into the exponent freely.
    return static_cast<Stored>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};
struct F16 {
  using Stored = io::f16;
  static float widen(Stored s) { return io::f16_to_float(s); }
  static Stored narrow(float x) { return io::float_to_f16(x); }
};
struct F32 {
  using Stored = float;
  static float widen(Stored s) { return s; }
  template <class Real>
  static Stored narrow(Real x) {
    return static_cast<float>(x);
  }
};

template <class Element>
typename Element::Stored get(const std::byte* bytes, std::int64_t index) {
  typename Element::Stored value;
  std::memcpy(&value, bytes + static_cast<std::size_t>(index) * sizeof value, sizeof value);
  return value;
}

template <class Element>
void put(std::byte* bytes, std::int64_t index, typename Element::Stored value) {
  std::memcpy(bytes + static_cast<std::size_t>(index) * sizeof value, &value, sizeof value);
}

/// Calls work(Element{}) for the element type of `dtype`.
template <class Work>
void with_element(io::DType dtype, Work&& work) {
  switch (dtype) {
    case io::DType::bf16:
      return work(Bf16{});
    case io::DType::f16:
      return work(F16{});
    case io::DType::f32:
      return work(F32{});
    default:
      MRP_EXPECT(false, "edits are for bf16, f16 and f32");
  }
}

/// Reads elements of a matrix, with the change that is added to them.
template <class Element, class Real>
class Source {
 public:
  explicit Source(const MatrixBytes& matrix)
      : bytes_(matrix.bytes.data()), delta_(matrix.delta.empty() ? nullptr : matrix.delta.data()) {
    MRP_EXPECT(delta_ == nullptr || std::ssize(matrix.delta) == matrix.rows * matrix.columns);
  }
  Real operator[](std::int64_t index) const {
    const auto value = static_cast<Real>(Element::widen(get<Element>(bytes_, index)));
    return delta_ == nullptr ? value : value + static_cast<Real>(delta_[index]);
  }

 private:
  const std::byte* bytes_;
  const float* delta_;
};

template <class Real>
Real* scalars(Tile<Real>& tile) {
  return reinterpret_cast<Real*>(tile.data());
}
template <class Real>
const Real* scalars(const Tile<Real>& tile) {
  return reinterpret_cast<const Real*>(tile.data());
}

template <class Real>
void prepare(Tile<Real>& tile, std::int64_t length) {
  tile.resize(static_cast<std::size_t>(padded_length(length)));
  for (std::int64_t j = length; j < padded_length(length); ++j) {
    tile[static_cast<std::size_t>(j)].v = typename Lanes<Real>::Vector{};
  }
}

}  // namespace

template <class Real>
void load_rows(const MatrixBytes& matrix, std::int64_t first, Tile<Real>& tile) {
  const std::int64_t used = std::min(kLanes, matrix.rows - first);
  prepare(tile, matrix.columns);
  if (used < kLanes) std::fill(tile.begin(), tile.end(), Lanes<Real>{});
  Real* out = scalars(tile);
  with_element(matrix.dtype, [&](auto element) {
    const Source<decltype(element), Real> in(matrix);
    // Sixteen columns at a time: the rows' cache lines are used up while they are near.
    for (std::int64_t begin = 0; begin < matrix.columns; begin += kLanes) {
      const std::int64_t end = std::min(begin + kLanes, matrix.columns);
      for (std::int64_t lane = 0; lane < used; ++lane) {
        const std::int64_t row = (first + lane) * matrix.columns;
        for (std::int64_t j = begin; j < end; ++j) {
          out[j * kLanes + lane] = in[row + j];
        }
      }
    }
  });
}

template <class Real>
void load_columns(const MatrixBytes& matrix, std::int64_t first, Tile<Real>& tile) {
  const std::int64_t used = std::min(kLanes, matrix.columns - first);
  prepare(tile, matrix.rows);
  if (used < kLanes) std::fill(tile.begin(), tile.end(), Lanes<Real>{});
  Real* out = scalars(tile);
  with_element(matrix.dtype, [&](auto element) {
    const Source<decltype(element), Real> in(matrix);
    for (std::int64_t i = 0; i < matrix.rows; ++i) {
      const std::int64_t row = i * matrix.columns + first;
      for (std::int64_t lane = 0; lane < used; ++lane) {
        out[i * kLanes + lane] = in[row + lane];
      }
    }
  });
}

template <class Real>
void store_rows(const Tile<Real>& tile, std::int64_t first, const MatrixBytes& matrix) {
  const std::int64_t used = std::min(kLanes, matrix.rows - first);
  const Real* in = scalars(tile);
  with_element(matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    std::byte* out = matrix.bytes.data();
    for (std::int64_t begin = 0; begin < matrix.columns; begin += kLanes) {
      const std::int64_t end = std::min(begin + kLanes, matrix.columns);
      for (std::int64_t lane = 0; lane < used; ++lane) {
        const std::int64_t row = (first + lane) * matrix.columns;
        for (std::int64_t j = begin; j < end; ++j) {
          put<Element>(out, row + j, Element::narrow(static_cast<float>(in[j * kLanes + lane])));
        }
      }
    }
  });
}

template <class Real>
void store_columns(const Tile<Real>& tile, std::int64_t first, const MatrixBytes& matrix) {
  const std::int64_t used = std::min(kLanes, matrix.columns - first);
  const Real* in = scalars(tile);
  with_element(matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    std::byte* out = matrix.bytes.data();
    for (std::int64_t i = 0; i < matrix.rows; ++i) {
      const std::int64_t row = i * matrix.columns + first;
      for (std::int64_t lane = 0; lane < used; ++lane) {
        put<Element>(out, row + lane, Element::narrow(static_cast<float>(in[i * kLanes + lane])));
      }
    }
  });
}

#define MRP_INSTANTIATE(Real)                                                    \
  template void load_rows(const MatrixBytes&, std::int64_t, Tile<Real>&);        \
  template void load_columns(const MatrixBytes&, std::int64_t, Tile<Real>&);     \
  template void store_rows(const Tile<Real>&, std::int64_t, const MatrixBytes&); \
  template void store_columns(const Tile<Real>&, std::int64_t, const MatrixBytes&);
MRP_INSTANTIATE(float)
MRP_INSTANTIATE(double)
#undef MRP_INSTANTIATE

}  // namespace mrp::shard
