// Writing; reading is in state_reader.cpp.
#include "io/state_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/direct_file.hpp"
#include "io/parallel_file.hpp"
#include "io/state_format.hpp"

namespace mrp::io {

namespace {

constexpr std::int64_t chunk_bytes = std::int64_t{8} << 20;

std::int64_t element_bytes(DType dtype) {
  return dtype_bits(dtype) / 8;
}

/// [rows × slice] of about chunk_bytes, evened out so that the last chunk carries little padding,
/// and of whole pages where there is more than one.
std::array<std::int64_t, 2> chunk_shape(std::int64_t rows, const SiteShape& site,
                                        const StateLayout& layout) {
  const std::int64_t columns = divide_up(site.width, site.slices);
  const std::int64_t row_bytes = columns * element_bytes(layout.dtype);
  const std::int64_t most = std::max<std::int64_t>(chunk_bytes / row_bytes, 1);
  const std::int64_t even = divide_up(rows, divide_up(rows, most));
  const std::int64_t pages = layout.page_rows(site);
  return {even == rows ? rows : divide_up(even, pages) * pages, columns};
}

void check_layout(const StateLayout& layout) {
  MRP_EXPECT(layout.dtype == DType::bf16 || layout.dtype == DType::f32);
  MRP_EXPECT(!layout.positions.empty() && !layout.sites.empty());
  std::set<std::string> names;
  for (const auto& site : layout.sites) {
    MRP_EXPECT(site.width > 0 && site.slices > 0 && site.slices <= site.width, site.site);
    MRP_EXPECT(site.site != positions_name && names.insert(site.site).second, site.site);
  }
  for (const auto& [set, positions] : layout.positions) {
    if (!positions.empty()) continue;
    throw dist::InputError(
        fmt::format("set \"{}\" has no positions to keep; give records with an answer, or keep all "
                    "positions",
                    set));
  }
}

std::string description(const StateLayout& layout) {
  std::string text = fmt::format("{}", dtype_name(layout.dtype));
  for (const auto& site : layout.sites) {
    text += fmt::format("/{} {} {}", site.site, site.width, site.slices);
  }
  for (const auto& [set, positions] : layout.positions) {
    text += fmt::format("/{} {}:", set, positions.size());
    text.append(reinterpret_cast<const char*>(positions.data()),
                positions.size() * sizeof(positions[0]));
  }
  return text;
}

}  // namespace

std::uint64_t StateLayout::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [set, rows_of_set] : positions) {
    const auto rows = static_cast<std::int64_t>(rows_of_set.size());
    sum += static_cast<std::uint64_t>(rows) * sizeof(rows_of_set[0]);
    if (rows == 0) continue;
    for (const auto& site : sites) {
      const auto [height, columns] = chunk_shape(rows, site, *this);
      sum += static_cast<std::uint64_t>(divide_up(rows, height) * height *
                                        divide_up(site.width, columns) * columns *
                                        element_bytes(dtype));
    }
  }
  return sum;
}

std::int64_t StateLayout::page_rows(const SiteShape& site) const {
  constexpr auto page = static_cast<std::int64_t>(PageBuffer::page);
  return page / std::gcd(page, divide_up(site.width, site.slices) * element_bytes(dtype));
}

struct StateWriter::Impl {
  ParallelFile file;
  bool is_root;
  DType dtype;
  std::map<std::pair<std::string, std::string>, std::size_t> datasets;  ///< (set, site) → number

  Impl(const std::filesystem::path& path, DType element, const dist::Communicator& comm)
      : file(path, comm), is_root(comm.is_root()), dtype(element) {}

  void create_set(hid_t root, const StateLayout& layout, const std::string& set,
                  const std::vector<std::array<std::int64_t, 2>>& positions) {
    const auto group = create_group(root, set);
    const auto rows = static_cast<std::int64_t>(positions.size());
    const auto dataset = file.add_dataset(group.get(), positions_name, H5T_STD_I64LE, {rows, 2});
    if (is_root) file.write(dataset, {0, rows}, {0, 2}, std::as_bytes(std::span(positions)));
    for (const auto& site : layout.sites) {
      const auto site_group = create_group(group.get(), site.site);
      const auto chunk = chunk_shape(rows, site, layout);
      datasets.emplace(
          std::pair(set, site.site),
          file.add_dataset(site_group.get(), states_name, state_type(dtype), {rows, site.width},
                           std::vector<std::int64_t>(chunk.begin(), chunk.end())));
    }
  }
};

StateWriter::StateWriter(const std::filesystem::path& path, const StateLayout& layout,
                         const std::string& fingerprint, const dist::Communicator& comm) {
  dist::agree(comm, [&] { check_layout(layout); });
  require_same(description(layout), comm);
  require_fit(path, layout.bytes(), comm);
  impl_ = std::make_unique<Impl>(path, layout.dtype, comm);
  impl_->file.create(states_format, states_version, fingerprint, [&](hid_t root) {
    for (const auto& [set, positions] : layout.positions) {
      impl_->create_set(root, layout, set, positions);
    }
  });
}

StateWriter::~StateWriter() = default;

void StateWriter::write(const std::string& set, const std::string& site, dist::Range rows,
                        dist::Range columns, std::span<const std::byte> data) {
  const auto found = impl_->datasets.find({set, site});
  MRP_EXPECT(found != impl_->datasets.end(), set + " " + site);
  impl_->file.write(found->second, rows, columns, data);
}

void StateWriter::finish() {
  impl_->file.finish();
}

}  // namespace mrp::io
