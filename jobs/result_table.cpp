#include <fmt/format.h>

#include <algorithm>
#include <array>

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
constexpr std::array<Column, 6> kColumns{{{"nll", "NLL"},
                                          {"answer_probability", "answer prob."},
                                          {"exact_memorization", "memorized"},
                                          {"letter_accuracy", "letter acc."},
                                          {"text_accuracy", "text acc."},
                                          {"open_accuracy", "open acc."}}};

/// forget and retain first.
std::vector<std::string> ordered_names(const MetricsFile& file) {
  std::vector<std::string> names{"forget", "retain"};
  for (const auto& [name, sides] : file.sets) {
    if (name != "forget" && name != "retain") names.push_back(name);
  }
  return names;
}

std::string metrics_part(const MetricsFile& file) {
  const auto present = [&](const Column& column) {
    return std::any_of(file.sets.begin(), file.sets.end(), [&](const auto& entry) {
      return entry.second.contains("base") && entry.second.at("base").contains(column.key);
    });
  };
  std::string header = fmt::format("{:<16}{:>7}", "set", "items");
  for (const Column& column : kColumns) {
    if (present(column)) header += fmt::format("{:>18}", column.title);
  }
  std::string text = header + "\n" + std::string(header.size(), '-') + "\n";
  for (const std::string& name : ordered_names(file)) {
    const auto& sides = file.sets.at(name);
    const auto& base = sides.at("base");
    const auto& unlearned = sides.at("unlearned");
    text += fmt::format("{:<16}{:>7}", name, base.at("count").get<std::int64_t>());
    for (const Column& column : kColumns) {
      if (!present(column)) continue;
      const bool has = base.contains(column.key);
      text += fmt::format("{:>18}",
                          has ? fmt::format("{:.3f} -> {:.3f}", base.at(column.key).get<double>(),
                                            unlearned.at(column.key).get<double>())
                              : "");
    }
    text += "\n";
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
  const auto file = io::SubspaceFile::read(job.work.subspaces());
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
    if (found == job.manifest.stages.end()) continue;
    text += fmt::format("{:<12}{:>10.1f}{:>22.2f}{:>8}\n", stage.name, found->second.seconds,
                        static_cast<double>(found->second.peak_memory) / double(1u << 30),
                        found->second.ranks);
  }
  return text;
}

}  // namespace

std::string result_table(const Job& job) {
  return fmt::format(
      "\n{}\n{}\n{}\nunlearned checkpoint  {}\nmetrics per item      {}\nfiles of the stages   "
      "{}\n",
      metrics_part(MetricsFile::read(job.work.metrics())), sites_part(job), stages_part(job),
      job.config.output.string(), job.work.metrics().string(), job.work.directory().string());
}

}  // namespace mrp::jobs
