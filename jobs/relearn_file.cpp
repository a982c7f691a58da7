#include "jobs/relearn_file.hpp"

#include "io/file.hpp"

namespace mrp::jobs {

using nlohmann::json;

namespace {

/// @throws json::exception if something is missing or of another type.
void check(const json& run) {
  for (const char* text : {"fingerprint", "model", "attacker", "projection"}) {
    run.at(text).get_ref<const std::string&>();
  }
  for (const char* number : {"learning_rate", "seed", "direction"}) run.at(number).get<double>();
  run.at("curve").at(0);
  for (const json& point : run.at("curve")) {
    for (const char* number : {"step", "answer_probability"}) point.at(number).get<double>();
  }
}

}  // namespace

RelearnFile RelearnFile::read(const std::filesystem::path& path) {
  try {
    if (!std::filesystem::exists(path)) return {};
    const json root = json::parse(io::read_text(path));
    if (root.at("format") != "mrp.relearn" || root.at("version") != 1) return {};
    for (const json& run : root.at("runs")) check(run);
    return {root.at("fingerprint"), root.at("runs")};
  } catch (const json::exception&) {
    return {};
  }
}

void RelearnFile::write(const std::filesystem::path& path) const {
  const json root = json::object(
      {{"format", "mrp.relearn"}, {"version", 1}, {"fingerprint", fingerprint}, {"runs", runs}});
  io::write_text(path, root.dump(1) + "\n");
}

}  // namespace mrp::jobs
