// What metrics.json says beyond single items: means with their intervals, and comparisons of sides
// and sets. One rank calls these.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "jobs/metrics_file.hpp"

namespace mrp::jobs {

/// The mean of every metric that the "items" of MEASURED have, by name. The truth ratio R counts as
/// min(R, 1/R) on the forget set and as max(0, 1 − R) elsewhere (TOFU, arXiv 2401.06121).
nlohmann::json means(const nlohmann::json& measured, bool is_forget);

/// Adds to MEASURED these means, and "intervals", the 95 % bootstrap interval of each by name.
void summarise(nlohmann::json& measured, bool is_forget);

/// Of complete sets, an object with
/// - "model_utility": by side, the harmonic mean "value" of the numbers "of" it (TOFU), by
///   SET.METRIC, of all sets but forget and `holdout`;
/// - "membership", if a holdout is named: by side and score, the area under the ROC curve of telling
///   the holdout from the forget set;
/// - "losses": retain metrics (nll, accuracies, probabilities) that are worse than the base's by more
///   than a hundredth, in the whole bootstrap interval of the difference;
/// and where a control was measured
/// - "forget_quality", if forget items have truth ratios: by form of the ratio and by side,
///   Kolmogorov–Smirnov against the control;
/// - "leaks": forget metrics in which the unlearned checkpoint lies below the control by more than
///   the bootstrap interval of the difference.
/// @throws InputError if an item of one side lacks what that of the other has.
nlohmann::json compare(const MetricsFile& file, const std::string& holdout);

}  // namespace mrp::jobs
