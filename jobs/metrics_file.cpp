#include "jobs/metrics_file.hpp"

#include <optional>
#include <utility>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "shard/evaluate.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

constexpr int kVersion = 2;

void put(json& object, const char* name, const std::optional<double>& value) {
  if (value) object[name] = *value;
}

}  // namespace

MetricsFile MetricsFile::read(const std::filesystem::path& path) {
  MetricsFile file;
  try {
    if (!std::filesystem::exists(path)) return file;
    json root = json::parse(io::read_text(path));
    if (root.at("format") != "mrp.metrics" || root.at("version") != kVersion) return file;
    MetricsFile found;
    found.fingerprint = root.at("fingerprint");
    for (const auto& [name, sides] : root.at("sets").items()) {
      for (const auto& [side, measured] : sides.items()) {
        measured.at("fingerprint").get<std::string>();
        found.sets[name][side] = measured;
      }
    }
    for (const char* known : {"format", "version", "fingerprint", "sets"}) root.erase(known);
    found.comparison = std::move(root);
    return found;
  } catch (const json::exception&) {
    return {};
  }
}

void MetricsFile::write(const std::filesystem::path& path) const {
  json root = json::object(
      {{"format", "mrp.metrics"}, {"version", kVersion}, {"fingerprint", fingerprint}});
  root["sets"] = sets;
  root.update(comparison);
  io::write_text(path, root.dump(1) + "\n");
}

json to_json(const shard::SetMetrics& metrics, const std::string& fingerprint) {
  json items = json::array();
  for (const shard::ItemMetrics& item : metrics.per_item) {
    json entry = json::object({{"id", item.id},
                               {"nll", item.nll},
                               {"tokens", item.tokens},
                               {"loss", item.nll_per_token()},
                               {"answer_probability", item.answer_probability()},
                               {"exact_memorization", item.exact_memorization},
                               {"extraction_strength", item.extraction_strength},
                               {"min_k", item.min_k},
                               {"min_k_plus_plus", item.min_k_plus_plus}});
    put(entry, "zlib", item.zlib);
    put(entry, "kl", item.kl);
    put(entry, "letter_correct", item.letter_correct);
    put(entry, "letter_probability", item.letter_probability);
    put(entry, "text_correct", item.text_correct);
    put(entry, "both_correct", item.both_correct);
    put(entry, "open_correct", item.open_correct);
    put(entry, "option_probability", item.option_probability);
    put(entry, "paraphrase_probability", item.paraphrase_probability);
    put(entry, "truth_ratio", item.truth_ratio);
    put(entry, "truth_ratio_arithmetic", item.truth_ratio_arithmetic);
    items.push_back(std::move(entry));
  }
  return json::object(
      {{"fingerprint", fingerprint}, {"count", metrics.items}, {"items", std::move(items)}});
}

}  // namespace mrp::jobs
