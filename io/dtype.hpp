// Element types of safetensors, and the conversions between bf16, f16 and f32 (round to nearest
// even).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mrp::io {

/// In safetensors' own order; the writer sorts tensors by it, descending.
enum class DType {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64
};

/// @throws InputError for a name that the format does not know.
DType parse_dtype(std::string_view name);
/// "BF16", as safetensors headers write it.
std::string_view dtype_name(DType dtype);
int dtype_bits(DType dtype);

using bf16 = std::uint16_t;  ///< bit pattern of a bfloat16
using f16 = std::uint16_t;   ///< bit pattern of an IEEE half

inline float bf16_to_float(bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

/// Nearest, ties to even; NaN stays NaN.
inline bf16 float_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // A NaN whose payload lies in the low half would become an infinity: set its quiet bit.
  if (value != value) return static_cast<bf16>((bits >> 16) | 0x40u);
  return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_float(f16 value);
/// Nearest, ties to even; NaN stays NaN, what is too large becomes infinity.
f16 float_to_f16(float value);

/// `bytes` holds elements of `dtype` (bf16, f16, f32 or f64, any alignment); out has as many
/// floats.
/// @throws InputError for other types.
void to_float(DType dtype, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace mrp::io
