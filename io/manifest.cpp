#include "io/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/json.hpp"

namespace mrp::io {

using nlohmann::json;

namespace {

constexpr const char* format = "mrp.manifest";
constexpr std::int64_t version = 1;

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

double non_negative(const JsonObject& object, const std::string& key) {
  const double value = object.number(key);
  if (value < 0) object.refuse(key, "a number of at least 0");
  return value;
}

dist::TimerEntry read_timer(const JsonObject& object) {
  object.allow_only({"name", "calls", "min", "mean", "max"});
  dist::TimerEntry timer;
  timer.name = object.text("name");
  timer.calls = object.integer("calls", 0);
  timer.min = non_negative(object, "min");
  timer.mean = non_negative(object, "mean");
  timer.max = non_negative(object, "max");
  return timer;
}

StageRecord read_stage(const JsonObject& object) {
  object.allow_only(
      {"fingerprint", "version", "ranks", "seconds", "peak_memory", "sent", "timers", "outputs"});
  StageRecord stage;
  stage.fingerprint = object.text("fingerprint");
  stage.version = object.text("version");
  stage.ranks = static_cast<int>(object.integer("ranks", 1, std::numeric_limits<int>::max()));
  stage.seconds = non_negative(object, "seconds");
  stage.peak_memory = static_cast<std::uint64_t>(object.integer("peak_memory", 0));
  stage.sent = static_cast<std::uint64_t>(object.integer("sent", 0));
  stage.outputs = object.texts("outputs");
  for (const auto& timer : object.objects("timers")) stage.timers.push_back(read_timer(timer));
  return stage;
}

TensorRecord read_tensor(const JsonObject& object) {
  object.allow_only({"changed", "sha256", "leak"});
  TensorRecord tensor;
  tensor.changed = object.boolean("changed");
  tensor.sha256 = object.text("sha256");
  if (!is_sha256(tensor.sha256)) object.refuse("sha256", "64 hexadecimal digits");
  tensor.leak = non_negative(object, "leak");
  return tensor;
}

double finite(double value, const std::string& what) {
  // JSON has no word for NaN and infinity, and nobody could read them back.
  MRP_EXPECT(std::isfinite(value) && value >= 0, what);
  return value;
}

json to_json(const StageRecord& stage, const std::string& name) {
  auto timers = json::array();
  for (const auto& timer : stage.timers) {
    timers.push_back({{"name", timer.name},
                      {"calls", timer.calls},
                      {"min", finite(timer.min, timer.name)},
                      {"mean", finite(timer.mean, timer.name)},
                      {"max", finite(timer.max, timer.name)}});
  }
  return {{"fingerprint", stage.fingerprint},
          {"version", stage.version},
          {"ranks", stage.ranks},
          {"seconds", finite(stage.seconds, name)},
          {"peak_memory", stage.peak_memory},
          {"sent", stage.sent},
          {"timers", std::move(timers)},
          {"outputs", stage.outputs}};
}

json to_json(const TensorRecord& tensor, const std::string& name) {
  MRP_EXPECT(is_sha256(tensor.sha256), name);
  return {
      {"changed", tensor.changed}, {"sha256", tensor.sha256}, {"leak", finite(tensor.leak, name)}};
}

}  // namespace

Manifest Manifest::read(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) {
    return {};
  }
  const auto source = path.string();
  const auto parsed = parse_json(read_text(path), source);
  const JsonObject root(parsed, source);
  if (root.text("format") != format) root.refuse("format", fmt::format("\"{}\"", format));
  root.integer("version", version, version);
  root.allow_only({"format", "version", "stages", "tensors", "compared"});
  Manifest manifest;
  const auto stages = root.object("stages");
  for (const auto& name : stages.keys()) {
    manifest.stages.emplace(name, read_stage(stages.object(name)));
  }
  const auto tensors = root.object("tensors");
  for (const auto& name : tensors.keys()) {
    manifest.tensors.emplace(name, read_tensor(tensors.object(name)));
  }
  if (root.has("compared")) manifest.compared = root.text("compared");
  return manifest;
}

void Manifest::write(const std::filesystem::path& path) const {
  // nlohmann's objects keep their keys sorted: equal manifests are equal files.
  json root = {{"format", format},
               {"version", version},
               {"stages", json::object()},
               {"tensors", json::object()}};
  for (const auto& [name, stage] : stages) root["stages"][name] = to_json(stage, name);
  for (const auto& [name, tensor] : tensors) root["tensors"][name] = to_json(tensor, name);
  if (!compared.empty()) root["compared"] = compared;
  write_text(path, root.dump(2) + "\n");
}

}  // namespace mrp::io
