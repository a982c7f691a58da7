#include "jobs/site_states.hpp"

#include <algorithm>
#include <cmath>

namespace mrp::jobs {

StateSets::StateSets(const io::StateReader& reader, std::vector<std::string> names) {
  std::int64_t first_sequence = 0;
  for (std::string& name : names) {
    const std::int64_t first_row = rows();
    std::int64_t last_sequence = first_sequence;
    for (const auto& [sequence, position] : reader.positions(name)) {
      sequences_.push_back(first_sequence + sequence);
      last_sequence = std::max(last_sequence, sequences_.back());
    }
    first_sequence = last_sequence + 1;
    parts_.push_back({std::move(name), {first_row, rows()}, 1});
  }
  for (Part& part : parts_) {
    const auto share = static_cast<double>(part.rows.size()) / static_cast<double>(rows());
    part.scale = static_cast<float>(std::sqrt(1 / (share * static_cast<double>(parts_.size()))));
  }
}

void StateSets::read(const io::StateReader& reader, const std::string& site, dist::Range rows,
                     dist::Range columns, std::span<float> out) const {
  for (const Part& part : parts_) {
    const dist::Range both{std::max(rows.begin, part.rows.begin),
                           std::min(rows.end, part.rows.end)};
    if (both.size() <= 0) continue;
    const auto block =
        out.subspan(static_cast<std::size_t>((both.begin - rows.begin) * columns.size()),
                    static_cast<std::size_t>(both.size() * columns.size()));
    reader.read(part.name, site, {both.begin - part.rows.begin, both.end - part.rows.begin},
                columns, block);
    if (parts_.size() == 1) continue;
    for (float& value : block) value *= part.scale;
  }
}

}  // namespace mrp::jobs
