#include "jobs/relearn_file.hpp"

#include "io/file.hpp"

namespace mrp::jobs {

using nlohmann::json;

RelearnFile RelearnFile::read(const std::filesystem::path& path) {
  try {
    if (!std::filesystem::exists(path)) return {};
    const json root = json::parse(io::read_text(path));
    if (root.at("format") != "mrp.relearn" || root.at("version") != 1) return {};
    for (const json& run : root.at("runs")) {
      run.at("fingerprint").get<std::string>();
      run.at("curve").at(0).at("step").get<std::int64_t>();
    }
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
