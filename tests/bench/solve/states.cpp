#include "states.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>

namespace mrp::bench {
namespace {

constexpr std::int64_t kSequenceRows = 16;
constexpr std::int64_t kPlanted = 16;
constexpr std::int64_t kBlockRows = 256;

// Numbers of variance 1 as cheap as they come, near enough to normal: sums of four uniform ones.
class Noise {
 public:
  explicit Noise(std::uint64_t seed) : state_(seed << 32) {}

  float next() {  // splitmix64
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
    const auto sum =
        static_cast<float>((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48));
    return (sum - 2 * 65535.0F) * (1.7320508F / 65536);
  }

 private:
  std::uint64_t state_;
};

std::vector<float> deviations(std::int64_t width, bool forget) {
  std::vector<float> result(static_cast<std::size_t>(width));
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = 1 / std::sqrt(static_cast<float>(i + 1));
  for (std::int64_t i = 0; forget && i < std::min(kPlanted, width); ++i) {
    result[static_cast<std::size_t>(width - 1 - i)] =
        std::sqrt(0.5F + 0.05F * static_cast<float>(i));
  }
  return result;
}

// The rows of one set of one site, from the first on.
class Rows {
 public:
  Rows(std::int64_t width, bool forget, std::uint64_t seed)
      : deviations_(deviations(width, forget)),
        mirror_(deviations_.size()),
        common_(deviations_.size()),
        row_(deviations_.size()),
        noise_(2 * seed + (forget ? 1 : 0)) {
    Noise noise(seed + (1 << 30));
    const float size = 1 / std::sqrt(static_cast<float>(width));
    for (float& value : mirror_) value = noise.next() < 0 ? -size : size;
  }

  std::span<const float> next() {
    if (count_++ % kSequenceRows == 0) {
      for (float& value : common_) value = noise_.next();
    }
    for (std::size_t i = 0; i < row_.size(); ++i)
      row_[i] = std::sqrt(0.5F) * deviations_[i] * (common_[i] + noise_.next());
    // Reflected, so that the directions are not those of single columns.
    const float along = std::inner_product(row_.begin(), row_.end(), mirror_.begin(), 0.0F);
    for (std::size_t i = 0; i < row_.size(); ++i) row_[i] -= 2 * along * mirror_[i];
    return row_;
  }

 private:
  std::vector<float> deviations_, mirror_, common_, row_;
  Noise noise_;
  std::int64_t count_ = 0;
};

std::vector<std::array<std::int64_t, 2>> positions(std::int64_t rows) {
  std::vector<std::array<std::int64_t, 2>> result;
  for (std::int64_t row = 0; row < rows; ++row)
    result.push_back({row / kSequenceRows, row % kSequenceRows});
  return result;
}

void write_site(io::StateWriter& writer, const std::string& set, const io::SiteShape& site,
                std::int64_t rows, Rows states, const dist::Communicator& comm) {
  const dist::Range columns = dist::slice(site.width, comm.size(), comm.rank());
  std::vector<io::bf16> block;
  for (std::int64_t row = 0; row < rows; row += kBlockRows) {
    const dist::Range range{row, std::min(row + kBlockRows, rows)};
    block.clear();
    for (std::int64_t i = 0; i < range.size(); ++i) {
      const std::span<const float> values = states.next().subspan(
          static_cast<std::size_t>(columns.begin), static_cast<std::size_t>(columns.size()));
      for (const float value : values) block.push_back(io::float_to_bf16(value));
    }
    writer.write(set, site.site, range, columns, std::as_bytes(std::span(block)));
  }
}

}  // namespace

void write_states(const std::filesystem::path& path, std::int64_t forget_rows,
                  std::int64_t retain_rows, const std::vector<std::int64_t>& widths,
                  const dist::Communicator& comm) {
  io::StateLayout layout;
  layout.positions = {{"forget", positions(forget_rows)}, {"retain", positions(retain_rows)}};
  for (std::size_t i = 0; i < widths.size(); ++i)
    layout.sites.push_back({fmt::format("sites.{}", i), widths[i], comm.size()});
  io::StateWriter writer(path, layout, "benchmark", comm);
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const io::SiteShape& site = layout.sites[i];
    write_site(writer, "forget", site, forget_rows, Rows(site.width, true, i), comm);
    write_site(writer, "retain", site, retain_rows, Rows(site.width, false, i), comm);
  }
  writer.finish();
}

}  // namespace mrp::bench
