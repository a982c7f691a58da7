#include "io/dtype.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "dist/error.hpp"

namespace mrp::io {

namespace {

struct Row {
  std::string_view name;
  int bits;
};

// Indexed by DType.
constexpr std::array<Row, 22> table = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};
static_assert(table.size() == static_cast<std::size_t>(DType::u64) + 1);

const Row& row_of(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  MRP_EXPECT(index < table.size());
  return table[index];
}

/// Element i of unaligned storage.
template <class T>
T load(std::span<const std::byte> bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

template <class T, class Convert>
void read_as(std::span<const std::byte> bytes, std::span<float> out, Convert convert) {
  MRP_EXPECT(bytes.size() == out.size() * sizeof(T));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = convert(load<T>(bytes, i));
}

[[noreturn]] void refuse(DType dtype) {
  throw dist::InputError(
      fmt::format("tensors of type {} cannot be computed with; allowed are BF16, F16, F32 and F64",
                  dtype_name(dtype)));
}

}  // namespace

DType parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == name) return static_cast<DType>(i);
  }
  throw dist::InputError(fmt::format("unknown dtype \"{}\"", name));
}

std::string_view dtype_name(DType dtype) {
  return row_of(dtype).name;
}

int dtype_bits(DType dtype) {
  return row_of(dtype).bits;
}

float f16_to_float(f16 value) {
  const std::uint32_t sign = (value & 0x8000u) << 16;
  const std::uint32_t magnitude = value & 0x7fffu;
  std::uint32_t bits = 0;
  if (magnitude >= 0x7c00u) {
    bits = 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + ((127u - 15u) << 23);
  } else {
    // Subnormal halves are exact multiples of 2^-24.
    bits = std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  }
  return std::bit_cast<float>(sign | bits);
}

f16 float_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >=
             0x47800000u) {  // 65536; from 65520 on, the carry below gives infinity too
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the smallest normal half
    const std::uint32_t rebased = magnitude - ((127u - 15u) << 23);
    half = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  } else {
    // Adding 0.5 leaves the value in units of 2^-24 in the low mantissa bits, rounded by the
    // processor.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  }
  return static_cast<f16>(sign | half);
}

void to_float(DType dtype, std::span<const std::byte> bytes, std::span<float> out) {
  switch (dtype) {
    case DType::bf16:
      return read_as<bf16>(bytes, out, bf16_to_float);
    case DType::f16:
      return read_as<f16>(bytes, out, f16_to_float);
    case DType::f32:
      return read_as<float>(bytes, out, [](float value) { return value; });
    case DType::f64:
      return read_as<double>(bytes, out, [](double value) { return static_cast<float>(value); });
    default:
      refuse(dtype);
  }
}

}  // namespace mrp::io
