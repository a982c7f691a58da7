// Against scipy 1.17 (ks_2samp(method="exact"), mannwhitneyu, bootstrap, hmean) and by hand.
#include "jobs/statistics.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace mrp::jobs {
namespace {

/// (factor · i) mod modulus + shift for i = 1 … n: numbers that any language can repeat.
std::vector<double> sequence(std::int64_t n, std::int64_t factor, std::int64_t modulus,
                             std::int64_t shift = 0) {
  std::vector<double> values;
  for (std::int64_t i = 1; i <= n; ++i) {
    values.push_back(static_cast<double>((factor * i) % modulus + shift));
  }
  return values;
}

void expect_test(const KolmogorovSmirnov& test, double d, double p_value) {
  EXPECT_NEAR(test.d, d, 1e-12);
  EXPECT_NEAR(test.p_value, p_value, 1e-10 * p_value);
  EXPECT_NEAR(test.log10_p, std::log10(p_value), 1e-9);
}

TEST(StatisticsTest, KolmogorovSmirnovIsThatOfScipy) {
  expect_test(kolmogorov_smirnov(sequence(5, 3, 7), sequence(7, 4, 11, 2)), 0.5714285714285714,
              0.23737373737373738);
  expect_test(kolmogorov_smirnov(sequence(40, 17, 101), sequence(40, 29, 101, 20)), 0.275,
              0.09707484379785862);
  expect_test(kolmogorov_smirnov(sequence(30, 17, 101), sequence(50, 29, 101)), 0.11333333333333333,
              0.9494650140333658);
  expect_test(kolmogorov_smirnov(sequence(20, 3, 5), sequence(30, 4, 7)), 0.26666666666666666,
              0.32377010436582404);  // with ties
  expect_test(kolmogorov_smirnov(sequence(300, 17, 1009), sequence(300, 29, 1009, 900)),
              0.8933333333333333, 1.929956651016928e-126);
  expect_test(kolmogorov_smirnov(sequence(400, 17, 1009), sequence(400, 29, 1009, 2000)), 1,
              1.0635896769518578e-239);
}

TEST(StatisticsTest, KolmogorovSmirnovOfEqualSamplesIsOne) {
  expect_test(kolmogorov_smirnov({3, 1, 2}, {1, 2, 3}), 0, 1);
}

TEST(StatisticsTest, KolmogorovSmirnovKeepsTheLogarithmOfWhatADoubleCannotHold) {
  const auto test = kolmogorov_smirnov(sequence(1000, 1, 2000), sequence(1000, 1, 2000, 5000));
  // Two of the C(2000, 1000) orders are separated.
  const double expected = (std::log(2) + 2 * std::lgamma(1001) - std::lgamma(2001)) / std::log(10);
  EXPECT_NEAR(test.log10_p, expected, 1e-6);
  EXPECT_EQ(test.p_value, 0);
}

TEST(StatisticsTest, AreaUnderCurveCountsPairs) {
  EXPECT_DOUBLE_EQ(area_under_curve(std::array{3.0, 4.0}, {1, 2}), 1);
  EXPECT_DOUBLE_EQ(area_under_curve(std::array{1.0, 3.0}, {2, 0}), 0.75);
  EXPECT_DOUBLE_EQ(area_under_curve(std::array{1.0, 1.0}, {1, 1, 1}), 0.5);
  EXPECT_NEAR(area_under_curve(sequence(60, 17, 101), sequence(40, 29, 101, 20)),
              0.32729166666666665, 1e-12);
  EXPECT_NEAR(area_under_curve(sequence(60, 3, 5), sequence(40, 4, 7)), 0.345, 1e-12);
}

TEST(StatisticsTest, HarmonicMean) {
  EXPECT_DOUBLE_EQ(harmonic_mean(std::array{0.9, 0.5, 0.25}), 0.421875);
  EXPECT_DOUBLE_EQ(harmonic_mean(std::array{0.9, 0.0}), 0);
}

TEST(StatisticsTest, BootstrapIntervalIsThatOfScipyWithinItsNoise) {
  const std::vector<double> values = sequence(60, 17, 101);
  const Interval interval = bootstrap_interval(values);
  // scipy with 200,000 resamples; the standard error of the mean is 3.7.
  EXPECT_NEAR(interval.low, 39.83, 0.8);
  EXPECT_NEAR(interval.high, 54.5, 0.8);
  const Interval again = bootstrap_interval(values);
  EXPECT_EQ(interval.low, again.low);
  EXPECT_EQ(interval.high, again.high);
}

TEST(StatisticsTest, BootstrapIntervalOfOneValueIsThatValue) {
  const Interval interval = bootstrap_interval(std::array{0.25});
  EXPECT_EQ(interval.low, 0.25);
  EXPECT_EQ(interval.high, 0.25);
}

}  // namespace
}  // namespace mrp::jobs
