#include "jobs/metrics_file.hpp"

#include <optional>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "shard/evaluate.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

void put(json& object, const char* name, const std::optional<double>& value) {
  if (value) object[name] = *value;
}

}  // namespace

MetricsFile MetricsFile::read(const std::filesystem::path& path) {
  MetricsFile file;
  try {
    if (!std::filesystem::exists(path)) return file;
    const json root = json::parse(io::read_text(path));
    if (root.at("format") != "mrp.metrics" || root.at("version") != 1) return file;
    MetricsFile found{root.at("fingerprint"), {}};
    for (const auto& [name, sides] : root.at("sets").items()) {
      for (const auto& [side, measured] : sides.items()) {
        measured.at("fingerprint").get<std::string>();
        found.sets[name][side] = measured;
      }
    }
    return found;
  } catch (const json::exception&) {
    return {};
  }
}

void MetricsFile::write(const std::filesystem::path& path) const {
  json root =
      json::object({{"format", "mrp.metrics"}, {"version", 1}, {"fingerprint", fingerprint}});
  root["sets"] = sets;
  io::write_text(path, root.dump(1) + "\n");
}

json to_json(const shard::SetMetrics& metrics, const std::string& fingerprint) {
  json result = json::object({{"fingerprint", fingerprint},
                              {"count", metrics.items},
                              {"nll", metrics.nll},
                              {"answer_probability", metrics.answer_probability},
                              {"exact_memorization", metrics.exact_memorization}});
  put(result, "letter_accuracy", metrics.letter_accuracy);
  put(result, "letter_probability", metrics.letter_probability);
  put(result, "text_accuracy", metrics.text_accuracy);
  put(result, "open_accuracy", metrics.open_accuracy);
  json& items = result["items"] = json::array();
  for (const shard::ItemMetrics& item : metrics.per_item) {
    json entry = json::object({{"id", item.id},
                               {"nll", item.nll},
                               {"tokens", item.tokens},
                               {"exact_memorization", item.exact_memorization}});
    put(entry, "letter_correct", item.letter_correct);
    put(entry, "letter_probability", item.letter_probability);
    put(entry, "text_correct", item.text_correct);
    put(entry, "open_correct", item.open_correct);
    items.push_back(std::move(entry));
  }
  return result;
}

}  // namespace mrp::jobs
