#include "io/dtype.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

/// A binary floating-point format by its definition: sign, exponent, fraction.
struct Format {
  int exponent_bits;
  int fraction_bits;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  double largest() const { return std::ldexp(2.0 - std::ldexp(1.0, -fraction_bits), bias()); }

  double value(unsigned pattern) const {
    const unsigned fraction = pattern & ((1u << fraction_bits) - 1);
    const int exponent = static_cast<int>(pattern >> fraction_bits) & ((1 << exponent_bits) - 1);
    const double sign = (pattern & 0x8000u) != 0 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
      return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                           : std::numeric_limits<double>::quiet_NaN();
    }
    const double significand = std::ldexp(fraction, -fraction_bits) + (exponent == 0 ? 0.0 : 1.0);
    return sign * std::ldexp(significand, std::max(exponent, 1) - bias());
  }

  /// Nearest representable, ties to even, by arithmetic in double (exact for floats).
  double nearest(double value) const {
    if (value == 0 || !std::isfinite(value)) return value;
    const int exponent = std::max(std::ilogb(value), 1 - bias());
    const double quantum = std::ldexp(1.0, exponent - fraction_bits);
    const double rounded = std::nearbyint(value / quantum) * quantum;
    return std::fabs(rounded) > largest()
               ? std::copysign(std::numeric_limits<double>::infinity(), value)
               : rounded;
  }
};

constexpr Format brain{8, 7};
constexpr Format half{5, 10};

/// Counts wrong values over thousands of cases and shows the first.
class Tally {
 public:
  void compare(float value, double expected, std::uint32_t bits) {
    const bool same = std::isnan(expected)
                          ? std::isnan(value)
                          : value == expected && std::signbit(value) == std::signbit(expected);
    if (!same && wrong_++ == 0) first_ = fmt::format("{:#x}: {} is not {}", bits, value, expected);
  }
  ~Tally() { EXPECT_EQ(wrong_, 0) << "the first: " << first_; }

 private:
  int wrong_ = 0;
  std::string first_;
};

TEST(DType, EveryPatternHasTheValueOfItsDefinition) {
  Tally bf16s;
  Tally f16s;
  for (unsigned pattern = 0; pattern < 0x10000; ++pattern) {
    bf16s.compare(bf16_to_float(static_cast<bf16>(pattern)), brain.value(pattern), pattern);
    f16s.compare(f16_to_float(static_cast<f16>(pattern)), half.value(pattern), pattern);
  }
}

TEST(DType, EveryPatternSurvivesTheRoundTrip) {
  Tally bf16s;
  Tally f16s;
  for (unsigned pattern = 0; pattern < 0x10000; ++pattern) {
    const auto bf16_back = float_to_bf16(bf16_to_float(static_cast<bf16>(pattern)));
    const auto f16_back = float_to_f16(f16_to_float(static_cast<f16>(pattern)));
    bf16s.compare(bf16_to_float(bf16_back), brain.value(pattern), pattern);
    f16s.compare(f16_to_float(f16_back), half.value(pattern), pattern);
  }
}

/// Halfway points between neighbours, the floats next to them, and random bits.
std::vector<float> rounding_cases(const Format& format) {
  std::vector<float> cases = {0.0f, -0.0f, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::max(),
                              std::numeric_limits<float>::denorm_min()};
  const unsigned infinity = ((1u << format.exponent_bits) - 1) << format.fraction_bits;
  for (unsigned pattern = 0; pattern < infinity; ++pattern) {
    const double low = format.value(pattern);
    const double high =
        pattern + 1 < infinity ? format.value(pattern + 1) : std::ldexp(1.0, format.bias() + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    for (const float value : {std::nextafter(middle, 0.0f), middle,
                              std::nextafter(middle, std::numeric_limits<float>::infinity())}) {
      cases.push_back(value);
      cases.push_back(-value);
    }
  }
  std::mt19937 random(3);
  for (int i = 0; i < 200'000; ++i) {
    cases.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return cases;
}

TEST(DType, RoundsToNearestEven) {
  Tally bf16s;
  for (const float value : rounding_cases(brain)) {
    bf16s.compare(bf16_to_float(float_to_bf16(value)), brain.nearest(value),
                  std::bit_cast<std::uint32_t>(value));
  }
  Tally f16s;
  for (const float value : rounding_cases(half)) {
    f16s.compare(f16_to_float(float_to_f16(value)), half.nearest(value),
                 std::bit_cast<std::uint32_t>(value));
  }
}

TEST(DType, NaNWhosePayloadIsCutStaysNaN) {
  for (const std::uint32_t bits :
       {0x7f800001u, 0xff800001u, 0x7f80ffffu, 0x7fffffffu, 0xffffffffu}) {
    const auto value = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value)))) << std::hex << bits;
    EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(value)))) << std::hex << bits;
  }
}

template <class T>
void expect_unaligned(DType dtype, const std::vector<T>& values,
                      const std::vector<float>& expected) {
  std::vector<std::byte> bytes(values.size() * sizeof(T) + 1);
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  std::vector<float> out(values.size());
  to_float(dtype, std::span(bytes).subspan(1), out);
  EXPECT_EQ(out, expected) << dtype_name(dtype);
}

TEST(DType, ReadsElementsOfAnyAlignment) {
  expect_unaligned<bf16>(DType::bf16, {0x3f80, 0xc000, 0x3fc0}, {1, -2, 1.5f});
  expect_unaligned<f16>(DType::f16, {0x3c00, 0xc000, 0x3e00}, {1, -2, 1.5f});
  expect_unaligned<float>(DType::f32, {1, -2, 1.5f}, {1, -2, 1.5f});
  expect_unaligned<double>(DType::f64, {1, -2, 0.1}, {1, -2, 0.1f});
}

TEST(DType, RefusesToComputeWithOtherTypes) {
  std::array<std::byte, 4> bytes{};
  std::array<float, 4> out{};
  EXPECT_THAT(test::message_of<dist::InputError>([&] { to_float(DType::i8, bytes, out); }),
              testing::HasSubstr("I8"));
}

TEST(DType, BrokenLengthsAreContractErrors) {
  std::array<std::byte, 4> bytes{};
  std::array<float, 4> out{};
  EXPECT_THROW(to_float(DType::f32, bytes, out), dist::ContractError);
}

TEST(DType, NamesGoBothWays) {
  for (int i = 0; i <= static_cast<int>(DType::u64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_name(DType::f8_e4m3fnuz), "F8_E4M3FNUZ");
  EXPECT_EQ(dtype_bits(DType::f4), 4);
  EXPECT_EQ(dtype_bits(DType::f6_e3m2), 6);
  EXPECT_EQ(dtype_bits(DType::c64), 64);
  EXPECT_THROW(parse_dtype("F128"), dist::InputError);
  EXPECT_THROW(parse_dtype("bf16"), dist::InputError);
}

}  // namespace
}  // namespace mrp::io
