#include "jobs/metrics_summary.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/error.hpp"
#include "jobs/continuation.hpp"
#include "jobs/statistics.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

struct Mean {
  const char* name;
  const char* item;  ///< what is averaged
  int knowledge = 0;  ///< 1: more of it is more knowledge, −1: less is
};
constexpr std::array<Mean, 16> kMeans{{{"nll", "loss", -1},
                                       {"answer_probability", "answer_probability", 1},
                                       {"exact_memorization", "exact_memorization", 1},
                                       {"extraction_strength", "extraction_strength", 1},
                                       {"letter_accuracy", "letter_correct", 1},
                                       {"letter_probability", "letter_probability", 1},
                                       {"text_accuracy", "text_correct", 1},
                                       {"both_accuracy", "both_correct", 1},
                                       {"open_accuracy", "open_correct", 1},
                                       {"option_probability", "option_probability", 1},
                                       {"paraphrase_probability", "paraphrase_probability", 1},
                                       {"truth_ratio", "truth_ratio"},
                                       {"truth_ratio_arithmetic", "truth_ratio_arithmetic"},
                                       {"kl", "kl"},
                                       {"rouge_l_recall", "rouge_l_recall", 1},
                                       {"rouge_l_f1", "rouge_l_f1", 1}}};
constexpr std::array kTruthRatios{std::pair{"geometric", "truth_ratio"},
                                  std::pair{"arithmetic", "truth_ratio_arithmetic"}};
constexpr std::array kMembershipScores{"loss", "min_k", "min_k_plus_plus", "zlib"};

/// Of the items that have it.
std::vector<double> values(const json& measured, const char* item_key) {
  std::vector<double> found;
  for (const json& item : measured.at("items")) {
    if (item.contains(item_key)) found.push_back(item.at(item_key));
  }
  return found;
}

/// The numbers that a mean of the set is taken of.
std::vector<double> averaged(const json& measured, const Mean& metric, bool is_forget) {
  std::vector<double> of_items = values(measured, metric.item);
  if (!std::string_view(metric.item).starts_with("truth_ratio")) return of_items;
  for (double& ratio : of_items) {
    ratio = is_forget ? std::min(ratio, 1 / ratio) : std::max(0.0, 1 - ratio);
  }
  return of_items;
}

json forget_quality(const std::map<std::string, json>& forget) {
  json result = json::object();
  for (const auto& [form, key] : kTruthRatios) {
    const std::vector<double> reference = values(forget.at("control"), key);
    if (reference.empty()) continue;
    for (const char* side : {"base", "unlearned"}) {
      const KolmogorovSmirnov test = kolmogorov_smirnov(values(forget.at(side), key), reference);
      result[form][side] = {{"d", test.d},
                            {"p_value", test.p_value},
                            {"log10_p", test.log10_p},
                            {"items", reference.size()}};
    }
  }
  return result;
}

/// Probability, ROUGE and truth ratio of a set; sets other than retain give the probability among
/// the options where they have options.
void add_utility(const std::string& set, const json& measured, json& numbers) {
  const bool among = set != "retain" && measured.contains("option_probability");
  for (const char* metric :
       {among ? "option_probability" : "answer_probability", "rouge_l_recall", "truth_ratio"}) {
    if (measured.contains(metric)) numbers[set + "." + metric] = measured.at(metric);
  }
}

json model_utility(const MetricsFile& file, const std::string& holdout) {
  json result = json::object();
  for (const auto& [set, sides] : file.sets) {
    if (is_forgotten(set) || set == holdout) continue;
    for (const auto& [side, measured] : sides) add_utility(set, measured, result[side]["of"]);
  }
  for (json& side : result) {
    std::vector<double> numbers;
    for (const json& number : side.at("of")) numbers.push_back(number);
    side["value"] = harmonic_mean(numbers);
  }
  return result;
}

json membership(const MetricsFile& file, const std::string& holdout) {
  json result = json::object({{"holdout", holdout}});
  for (const auto& [side, forget] : file.sets.at("forget")) {
    const json& unseen = file.sets.at(holdout).at(side);
    for (const char* score : kMembershipScores) {
      result[side][score] = area_under_curve(values(unseen, score), values(forget, score));
    }
  }
  return result;
}

/// Metrics by which `unlearned` knows less of a set than `reference`, which is called `name`: by more
/// than `margin` in the whole bootstrap interval of the difference.
json knows_less(const json& unlearned, const json& reference, const char* name, double margin) {
  json found = json::array();
  for (const Mean& metric : kMeans) {
    std::vector<double> difference = values(unlearned, metric.item);
    if (metric.knowledge == 0 || difference.empty()) continue;
    const std::vector<double> before = values(reference, metric.item);
    if (before.size() != difference.size()) {
      throw dist::InputError(fmt::format(
          "metrics.json is damaged: {} items of the {} have {}, {} of the unlearned checkpoint; "
          "remove the file to measure again",
          before.size(), name, metric.item, difference.size()));
    }
    std::ranges::transform(difference, before, difference.begin(), std::minus());
    const Interval interval = bootstrap_interval(difference);
    if (metric.knowledge > 0 ? interval.high >= -margin : interval.low <= margin) continue;
    found.push_back({{"metric", metric.name},
                     {"unlearned", unlearned.at(metric.name)},
                     {name, reference.at(metric.name)},
                     {"difference", mean(difference)},
                     {"interval", {interval.low, interval.high}}});
  }
  return found;
}

}  // namespace

json means(const json& measured, bool is_forget) {
  json result = json::object();
  for (const Mean& metric : kMeans) {
    const std::vector<double> of_items = averaged(measured, metric, is_forget);
    if (!of_items.empty()) result[metric.name] = mean(of_items);
  }
  return result;
}

void summarise(json& measured, bool is_forget) {
  json& intervals = measured["intervals"] = json::object();
  measured.update(means(measured, is_forget));
  for (const Mean& metric : kMeans) {
    const std::vector<double> of_items = averaged(measured, metric, is_forget);
    if (of_items.empty()) continue;
    const Interval interval = bootstrap_interval(of_items);
    intervals[metric.name] = {interval.low, interval.high};
  }
  const std::size_t ratios = values(measured, "truth_ratio").size();
  if (ratios == 0) return;
  std::size_t reworded = 0;
  for (const json& item : measured.at("items")) {
    if (item.contains("truth_ratio") && item.contains("paraphrase_probability")) ++reworded;
  }
  measured["truth_ratio_against"] = {{"paraphrase", reworded}, {"answer", ratios - reworded}};
}

json compare(const MetricsFile& file, const std::string& holdout) {
  constexpr double kLoss = 0.01;
  json result = json::object({{"model_utility", model_utility(file, holdout)}});
  const auto retain = file.sets.find("retain");
  if (retain != file.sets.end() && retain->second.contains("unlearned")) {
    const auto& sides = retain->second;
    result["losses"] = knows_less(sides.at("unlearned"), sides.at("base"), "base", kLoss);
  }
  if (!holdout.empty()) result["membership"] = membership(file, holdout);
  const auto& forget = file.sets.at("forget");
  if (!forget.contains("control")) return result;
  if (json quality = forget_quality(forget); !quality.empty()) {
    result["forget_quality"] = std::move(quality);
  }
  result["leaks"] = knows_less(forget.at("unlearned"), forget.at("control"), "control", 0);
  return result;
}

}  // namespace mrp::jobs
