#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>

#include "io/subspace_store.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/stages.hpp"
#include "shard/edit/edit_plan.hpp"

namespace mrp::jobs {
namespace {

struct Column {
  const char* key;
  const char* title;
};
constexpr std::array<Column, 4> kLikelihoods{{{"nll", "NLL"},
                                              {"answer_probability", "answer prob."},
                                              {"exact_memorization", "memorized"},
                                              {"rouge_l_recall", "ROUGE-L recall"}}};
constexpr std::array<Column, 4> kAccuracies{{{"letter_accuracy", "letter acc."},
                                             {"text_accuracy", "text acc."},
                                             {"both_accuracy", "both acc."},
                                             {"open_accuracy", "open acc."}}};

/// forget and retain first.
std::vector<std::string> ordered_names(const MetricsFile& file) {
  std::vector<std::string> names{"forget", "retain"};
  for (const auto& [name, sides] : file.sets) {
    if (name != "forget" && name != "retain") names.push_back(name);
  }
  return names;
}

/// "base -> unlearned", and "| control" where there is one; empty without the metric.
std::string cell(const std::map<std::string, nlohmann::json>& sides, const char* key) {
  if (!sides.at("base").contains(key)) return "";
  const auto value = [&](const char* side) { return sides.at(side).at(key).get<double>(); };
  std::string text = fmt::format("{:.3f} -> {:.3f}", value("base"), value("unlearned"));
  if (sides.contains("control")) text += fmt::format(" | {:.3f}", value("control"));
  return text;
}

/// A row a set with those of the columns that any set has; nothing if there are none.
std::string metrics_part(const MetricsFile& file, std::span<const Column> columns) {
  std::vector<Column> present;
  std::ranges::copy_if(columns, std::back_inserter(present), [&](const Column& column) {
    return std::ranges::any_of(
        file.sets, [&](const auto& entry) { return entry.second.at("base").contains(column.key); });
  });
  if (present.empty()) return "";
  const int width = file.sets.at("forget").contains("control") ? 25 : 18;
  std::string header = fmt::format("{:<16}{:>7}", "set", "items");
  for (const Column& column : present) header += fmt::format("{:>{}}", column.title, width);
  std::string text = header + "\n" + std::string(header.size(), '-') + "\n";
  for (const std::string& name : ordered_names(file)) {
    const auto& sides = file.sets.at(name);
    if (std::ranges::none_of(
            present, [&](const Column& column) { return sides.at("base").contains(column.key); })) {
      continue;
    }
    text += fmt::format("{:<16}{:>7}", name, sides.at("base").at("count").get<std::int64_t>());
    for (const Column& column : present)
      text += fmt::format("{:>{}}", cell(sides, column.key), width);
    text += "\n";
  }
  return text + "\n";
}

/// What compares sides and sets, a line each.
std::string comparison_part(const MetricsFile& file) {
  const auto& found = file.comparison;
  const auto line = [](const std::string& name, const nlohmann::json& sides, const char* number) {
    std::map<std::string, nlohmann::json> entries;
    for (const char* side : {"base", "unlearned", "control"}) {
      if (sides.contains(side)) entries[side] = sides.at(side);
    }
    return entries.contains("base") ? fmt::format("{:<34}{:>25}\n", name, cell(entries, number))
                                    : "";
  };
  std::string text = line("model utility", found.at("model_utility"), "value");
  if (found.contains("membership")) {
    const auto& membership = found.at("membership");
    for (const char* score : {"loss", "min_k", "min_k_plus_plus", "zlib"}) {
      text += line(fmt::format("membership AUC, {}", score), membership, score);
    }
  }
  if (found.contains("forget_quality")) {
    const auto& quality = found.at("forget_quality").at("geometric");
    text += line("forget quality, D to the control", quality, "d");
    text += line("forget quality, log10 p", quality, "log10_p");
  }
  for (const auto& [list, name, reference] :
       {std::array{"losses", "lost: retain", "base"}, std::array{"leaks", "leak:", "control"}}) {
    for (const auto& entry : found.value(list, nlohmann::json::array())) {
      text += fmt::format("{} {} {:.3f}, {} {:.3f}\n", name, entry.at("metric").get<std::string>(),
                          entry.at("unlearned").get<double>(), reference,
                          entry.at(reference).get<double>());
    }
  }
  return text;
}

/// Largest leak of the tensors that the folds of each site touch.
std::map<std::string, double> leaks(const Job& job, const io::SubspaceFile& subspaces) {
  const io::Checkpoint base(job.config.model);
  const auto plan = shard::make_edit_plan(base, io::ModelConfig::read(job.config.model), subspaces);
  std::map<std::string, double> largest;
  for (const shard::TensorEdit& edit : plan.edits) {
    for (const shard::Fold& fold : edit.folds) {
      double& leak = largest[fold.site];
      leak = std::max(leak, job.manifest.tensors.at(edit.tensor).leak);
    }
  }
  return largest;
}

std::string sites_part(const Job& job) {
  const auto file = folded_subspaces(job);
  if (file.sites.empty()) return "";
  const auto leak = leaks(job, file);
  std::string text = fmt::format("{:<34}{:>5}{:>16}{:>16}{:>12}\n", "site", "k", "forget removed",
                                 "retain removed", "leak");
  std::size_t empty = 0;
  std::map<shard::Site, io::StoredSubspace> in_order;
  for (const auto& [name, found] : file.sites) in_order.emplace(shard::Site::parse(name), found);
  for (const auto& [place, found] : in_order) {
    if (found.k == 0) {
      ++empty;
      continue;
    }
    text += fmt::format("{:<34}{:>5}{:>16.3g}{:>16.3g}{:>12.1e}\n", found.site, found.k,
                        found.forget_removed, found.retain_distortion, leak.at(found.site));
  }
  if (empty > 0)
    text += fmt::format("{} of {} sites: k = 0, no signal above the null edge\n", empty,
                        file.sites.size());
  return text;
}

std::string stages_part(const Job& job) {
  std::string text =
      fmt::format("{:<12}{:>10}{:>22}{:>8}\n", "stage", "seconds", "peak GiB per rank", "ranks");
  for (const Stage& stage : all_stages()) {
    const auto found = job.manifest.stages.find(stage.name);
    if (!has_stage(job, stage.name) || found == job.manifest.stages.end()) continue;
    text += fmt::format("{:<12}{:>10.1f}{:>22.2f}{:>8}\n", stage.name, found->second.seconds,
                        static_cast<double>(found->second.peak_memory) / double(1u << 30),
                        found->second.ranks);
  }
  return text;
}

}  // namespace

std::string result_table(const Job& job) {
  const MetricsFile metrics = MetricsFile::read(job.work.metrics());
  return fmt::format(
      "\n{}{}{}\n{}\n{}\nunlearned checkpoint  {}\nmetrics per item      {}\nfiles of the stages   "
      "{}\n",
      metrics_part(metrics, kLikelihoods), metrics_part(metrics, kAccuracies),
      comparison_part(metrics), sites_part(job), stages_part(job), job.config.output.string(),
      job.work.metrics().string(), job.work.directory().string());
}

}  // namespace mrp::jobs
