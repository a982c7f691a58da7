// Statistics of values per item. Nothing here communicates.
#pragma once

#include <span>
#include <vector>

namespace mrp::jobs {

/// @pre not empty
double mean(std::span<const double> values);

struct Interval {
  double low = 0;
  double high = 0;
};

/// 95 % percentile-bootstrap interval of the mean: 1000 resamples, always with the same seed, so
/// that equal values give equal intervals. @pre not empty
Interval bootstrap_interval(std::span<const double> values);

struct KolmogorovSmirnov {
  double d = 0;        ///< sup_x |F_a(x) − F_b(x)|
  double p_value = 1;  ///< 0 below 1e-308
  double log10_p = 0;  ///< exact down to −4900
};

/// Two-sample, two-sided, exact at any size (the path count of Hodges 1958; with ties the p-value
/// is an upper bound). O(|a| · |b|) operations. @pre both not empty
KolmogorovSmirnov kolmogorov_smirnov(std::vector<double> a, std::vector<double> b);

/// Area under the ROC curve of telling `positives` from `negatives` by a higher score:
/// P(positive > negative) + P(equal)/2. @pre both not empty
double area_under_curve(std::span<const double> positives, std::vector<double> negatives);

/// 0 if one of the values is. @pre not empty, none negative
double harmonic_mean(std::span<const double> values);

}  // namespace mrp::jobs
