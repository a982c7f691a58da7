#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "dist/checked_cast.hpp"
#include "dist/error.hpp"
#include "io/chunk_reader.hpp"
#include "io/hdf5_array.hpp"
#include "io/state_format.hpp"
#include "io/state_store.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

/// Bounds the raw values that are held beside the floats, and HDF5's cache of chunks.
constexpr std::int64_t buffer_bytes = std::int64_t{64} << 20;

template <class Map>
std::vector<std::string> keys(const Map& map) {
  std::vector<std::string> names;
  for (const auto& [name, unused] : map) names.push_back(name);
  return names;
}

template <class Map>
const auto& find(const Map& map, const std::string& name, const char* kind,
                 const std::filesystem::path& path) {
  const auto found = map.find(name);
  if (found != map.end()) return found->second;
  throw InputError(fmt::format("{}: no {} \"{}\"; the file has: {}", path.string(), kind, name,
                               fmt::join(keys(map), ", ")));
}

/// Keeps the chunks of one row of chunks, so that neighbouring blocks of columns read them once.
Hdf5Handle cached_access() {
  auto access = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  constexpr std::size_t slots = 1009;  // a prime, as HDF5 advises
  constexpr double evict_complete_first = 1.0;
  MRP_HDF5(H5Pset_chunk_cache(access.get(), slots, static_cast<std::size_t>(buffer_bytes),
                              evict_complete_first));
  return access;
}

}  // namespace

struct StateReader::Impl {
  std::filesystem::path path;
  Hdf5Handle file;
  std::string fingerprint;
  DType dtype = DType::bf16;
  std::map<std::string, std::int64_t> rows;    // of sets
  std::map<std::string, std::int64_t> widths;  // of sites

  // The dataset that was read last stays open, with its chunks in HDF5's cache.
  std::pair<std::string, std::string> current;
  Hdf5Handle dataset;
  std::int64_t rows_per_chunk = 1;
  std::vector<bf16> raw;
  DirectFile direct;
  std::optional<ChunkRun> run;  ///< of the dataset, if its chunks can be read directly
  ChunkReader chunks{direct};

  explicit Impl(const std::filesystem::path& file_path)
      : path(file_path), file(open_hdf5(file_path)), direct(file_path, DirectFile::Access::read) {
    as_input(path, [&] {
      check_format(file.get(), states_format, states_version);
      fingerprint = read_text_attribute(file.get(), "fingerprint");
      bool first = true;
      for (const auto& set : children(file.get())) {
        open_set(set, first);
        first = false;
      }
      if (first) throw InputError(path.string() + ": holds no sets; run capture again");
    });
  }

  void open_set(const std::string& set, bool first) {
    const auto group = open_group(file.get(), set);
    const auto positions = open_dataset(group.get(), positions_name);
    const auto shape = checked_shape(positions.get(), 2);
    rows[set] = shape[0];
    auto names = children(group.get());
    std::erase(names, positions_name);
    for (const auto& site : names) {
      const auto states = open_dataset(open_group(group.get(), site).get(), states_name);
      const auto [element, width] = check_states(states.get(), shape[0]);
      if (first) {
        widths[site] = width;
        dtype = element;
      }
      const auto known = widths.find(site);
      if (known == widths.end() || known->second != width || element != dtype) {
        throw InputError(object_name(states.get()) +
                         ": differs from other sets; run capture again");
      }
    }
    if (names.empty() || names.size() != widths.size()) {
      throw InputError(object_name(group.get()) + ": sites are missing; run capture again");
    }
  }

  std::pair<DType, std::int64_t> check_states(hid_t states, std::int64_t expected_rows) const {
    const auto type = MRP_HDF5_HANDLE(H5Dget_type(states), H5Tclose);
    const bool is_bf16 = H5Tequal(type.get(), state_type(DType::bf16)) > 0;
    if (!is_bf16 && H5Tequal(type.get(), state_type(DType::f32)) <= 0) {
      throw InputError(object_name(states) + ": elements are neither bf16 nor f32");
    }
    const auto shape = checked_shape(states, 2);
    if (shape[0] != expected_rows || shape[1] == 0) {
      throw InputError(fmt::format("{}: is [{} × {}] with {} positions; run capture again",
                                   object_name(states), shape[0], shape[1], expected_rows));
    }
    return {is_bf16 ? DType::bf16 : DType::f32, shape[1]};
  }

  void select(const std::string& set, const std::string& site) {
    if (current == std::pair(set, site)) return;
    const auto set_group = open_group(file.get(), set);
    const auto site_group = open_group(set_group.get(), site);
    dataset = open_dataset(site_group.get(), states_name, cached_access().get());
    run = find_chunk_run(dataset.get());
    rows_per_chunk = run ? run->rows : rows.at(set);
    if (run && run->end() > std::filesystem::file_size(path)) run.reset();
    chunks.turn_to({}, {});
    current = {set, site};
  }

  /// Whole columns of chunks.
  void read_chunks(dist::Range range, dist::Range columns, std::span<float> out) {
    const dist::Range across{columns.begin / run->columns, columns.end / run->columns};
    if (chunks.across() != across) chunks.turn_to(*run, across);
    const auto width = static_cast<std::size_t>(columns.size());
    const auto part = static_cast<std::size_t>(run->columns);
    for (std::int64_t begin = range.begin; begin < range.end;) {
      const dist::Range band = chunks.band(begin);
      const std::int64_t end = std::min(band.end, range.end);
      for (std::int64_t column = columns.begin; column < columns.end; column += run->columns) {
        auto bytes = chunks.read_band(begin, column / run->columns)
                         .subspan(static_cast<std::size_t>(begin - band.begin) * run->row_bytes);
        auto target = out.subspan(static_cast<std::size_t>(column - columns.begin));
        // A chunk as wide as the block is one piece.
        const auto rows_at_once = part == width ? end - begin : 1;
        for (std::int64_t row = begin; row < end; row += rows_at_once) {
          const auto count = static_cast<std::size_t>(rows_at_once);
          to_float(dtype, bytes.first(count * run->row_bytes), target.first(count * part));
          if (row + rows_at_once == end) break;
          bytes = bytes.subspan(run->row_bytes);
          target = target.subspan(width);
        }
      }
      out = out.subspan(static_cast<std::size_t>(end - begin) * width);
      begin = end;
    }
  }

  void read_rows(dist::Range block, dist::Range columns, void* out) const {
    const std::array start = {static_cast<hsize_t>(block.begin),
                              static_cast<hsize_t>(columns.begin)};
    const std::array count = {static_cast<hsize_t>(block.size()),
                              static_cast<hsize_t>(columns.size())};
    const auto file_space = MRP_HDF5_HANDLE(H5Dget_space(dataset.get()), H5Sclose);
    MRP_HDF5(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr,
                                 count.data(), nullptr));
    const auto memory_space = MRP_HDF5_HANDLE(H5Screate_simple(2, count.data(), nullptr), H5Sclose);
    MRP_HDF5(H5Dread(dataset.get(), state_type(dtype), memory_space.get(), file_space.get(),
                     H5P_DEFAULT, out));
  }

  /// Blocks of whole chunks where the buffer has room for them.
  void read(dist::Range range, dist::Range columns, std::span<float> out) {
    const std::int64_t most =
        std::max<std::int64_t>(buffer_bytes / (columns.size() * std::int64_t{sizeof(float)}), 1);
    const std::int64_t step =
        most >= rows_per_chunk ? most / rows_per_chunk * rows_per_chunk : most;
    for (std::int64_t begin = range.begin; begin < range.end;) {
      const dist::Range block = {begin, std::min((begin / step + 1) * step, range.end)};
      const auto count = static_cast<std::size_t>(block.size() * columns.size());
      const auto target =
          out.subspan(static_cast<std::size_t>((begin - range.begin) * columns.size()), count);
      if (dtype == DType::f32) {
        read_rows(block, columns, target.data());
      } else {
        if (raw.size() < count) raw.resize(count);
        read_rows(block, columns, raw.data());
        std::transform(raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(count),
                       target.begin(), bf16_to_float);
      }
      begin = block.end;
    }
  }
};

StateReader::StateReader(const std::filesystem::path& path) : impl_(std::make_unique<Impl>(path)) {}
StateReader::~StateReader() = default;
StateReader::StateReader(StateReader&&) noexcept = default;
StateReader& StateReader::operator=(StateReader&&) noexcept = default;

const std::string& StateReader::fingerprint() const {
  return impl_->fingerprint;
}
std::vector<std::string> StateReader::sets() const {
  return keys(impl_->rows);
}
std::vector<std::string> StateReader::sites() const {
  return keys(impl_->widths);
}
DType StateReader::dtype() const {
  return impl_->dtype;
}

std::int64_t StateReader::rows(const std::string& set) const {
  return find(impl_->rows, set, "set", impl_->path);
}

std::int64_t StateReader::width(const std::string& site) const {
  return find(impl_->widths, site, "site", impl_->path);
}

std::vector<std::array<std::int64_t, 2>> StateReader::positions(const std::string& set) const {
  const std::int64_t count = rows(set);
  return as_input(impl_->path, [&] {
    const auto group = open_group(impl_->file.get(), set);
    const auto flat = read_array<std::int64_t>(group.get(), positions_name, 2);
    const bool legal =
        std::all_of(flat.data.begin(), flat.data.end(), [](auto x) { return x >= 0; });
    if (flat.shape != std::vector<std::int64_t>{count, 2} || !legal) {
      throw InputError(object_name(group.get()) +
                       ": positions are not pairs of sequence and position; run capture again");
    }
    std::vector<std::array<std::int64_t, 2>> result(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = {flat.data[2 * i], flat.data[2 * i + 1]};
    return result;
  });
}

void StateReader::read(const std::string& set, const std::string& site, dist::Range rows_wanted,
                       dist::Range columns, std::span<float> out) const {
  MRP_EXPECT(0 <= rows_wanted.begin && rows_wanted.begin <= rows_wanted.end &&
             rows_wanted.end <= rows(set));
  MRP_EXPECT(0 <= columns.begin && columns.begin <= columns.end && columns.end <= width(site));
  MRP_EXPECT(std::cmp_equal(out.size(), rows_wanted.size() * columns.size()));
  if (out.empty()) return;
  as_input(impl_->path, [&] {
    impl_->select(set, site);
    const bool whole = impl_->run && impl_->run->is_whole(columns);
    whole ? impl_->read_chunks(rows_wanted, columns, out) : impl_->read(rows_wanted, columns, out);
  });
}

}  // namespace mrp::io
