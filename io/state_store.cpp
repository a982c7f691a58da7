// Writing; reading is in state_reader.cpp.
#include "io/state_store.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <set>
#include <system_error>
#include <utility>

#include "dist/agree.hpp"
#include "dist/checked_cast.hpp"
#include "dist/error.hpp"
#include "io/file.hpp"
#include "io/hash.hpp"
#include "io/hdf5.hpp"
#include "io/state_format.hpp"

namespace mrp::io {

namespace {

/// Some MPI-IO layers count the bytes of a transfer in 32 bits.
constexpr std::int64_t max_transfer_bytes = std::int64_t{1} << 30;
constexpr std::int64_t chunk_bytes = std::int64_t{4} << 20;
/// Metadata beside the data, generously.
constexpr std::uint64_t metadata_bytes = std::uint64_t{4} << 20;

using Chunk = std::array<std::int64_t, 2>;

std::int64_t divide_up(std::int64_t n, std::int64_t d) {
  return (n + d - 1) / d;
}

std::int64_t element_bytes(DType dtype) {
  return dtype_bits(dtype) / 8;
}

/// [rows × slice] of about chunk_bytes, evened out so that the last chunk carries little padding.
Chunk chunk_shape(std::int64_t rows, const SiteShape& site, DType dtype) {
  const std::int64_t columns = divide_up(site.width, site.slices);
  const std::int64_t most =
      std::max<std::int64_t>(chunk_bytes / (columns * element_bytes(dtype)), 1);
  return {divide_up(rows, divide_up(rows, most)), columns};
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

/// The ranks create the same datasets or wait for each other for ever.
void check_same_layout(const StateLayout& layout, const dist::Communicator& comm) {
  std::string text = fmt::format("{}", dtype_name(layout.dtype));
  for (const auto& site : layout.sites) {
    text += fmt::format("/{} {} {}", site.site, site.width, site.slices);
  }
  for (const auto& [set, positions] : layout.positions) {
    text += fmt::format("/{} {}:", set, positions.size());
    text.append(reinterpret_cast<const char*>(positions.data()),
                positions.size() * sizeof(positions[0]));
  }
  const auto own = xxh3_128(text);
  const auto root = comm.broadcast(own);
  dist::agree(comm, [&] { MRP_EXPECT(own == root, "the layout differs between ranks"); });
}

Hdf5Handle create_dataset(hid_t group, const char* name, hid_t type, std::array<hsize_t, 2> shape,
                          const Chunk* chunk) {
  const auto space = MRP_HDF5_HANDLE(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
  const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  MRP_HDF5(H5Pset_obj_track_times(properties.get(), false));
  MRP_HDF5(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY));
  MRP_HDF5(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER));
  if (chunk != nullptr) {
    const std::array lengths = {static_cast<hsize_t>((*chunk)[0]),
                                static_cast<hsize_t>((*chunk)[1])};
    MRP_HDF5(H5Pset_chunk(properties.get(), 2, lengths.data()));
  }
  return MRP_HDF5_HANDLE(
      H5Dcreate2(group, name, type, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
}

/// Writes the block of `dataset` that begins at `start`, independently of the other ranks.
void write_block(hid_t dataset, hid_t type, std::array<hsize_t, 2> start,
                 std::array<hsize_t, 2> count, const void* data) {
  const auto file_space = MRP_HDF5_HANDLE(H5Dget_space(dataset), H5Sclose);
  MRP_HDF5(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr,
                               count.data(), nullptr));
  const auto memory_space = MRP_HDF5_HANDLE(H5Screate_simple(2, count.data(), nullptr), H5Sclose);
  const auto transfer = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_XFER), H5Pclose);
  MRP_HDF5(H5Pset_dxpl_mpio(transfer.get(), H5FD_MPIO_INDEPENDENT));
  MRP_HDF5(H5Dwrite(dataset, type, memory_space.get(), file_space.get(), transfer.get(), data));
}

}  // namespace

std::uint64_t StateLayout::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [set, rows_of_set] : positions) {
    const auto rows = static_cast<std::int64_t>(rows_of_set.size());
    sum += static_cast<std::uint64_t>(rows) * sizeof(rows_of_set[0]);
    if (rows == 0) continue;
    for (const auto& site : sites) {
      const auto [height, columns] = chunk_shape(rows, site, dtype);
      sum += static_cast<std::uint64_t>(divide_up(rows, height) * height *
                                        divide_up(site.width, columns) * columns *
                                        element_bytes(dtype));
    }
  }
  return sum;
}

struct StateWriter::Impl {
  struct Dataset {
    Hdf5Handle id;
    std::int64_t rows, width;
  };

  std::filesystem::path path;
  const dist::Communicator* comm;
  DType dtype;
  Hdf5Handle file;
  std::map<std::pair<std::string, std::string>, Dataset> datasets;
  bool finished = false;

  Impl(const std::filesystem::path& final_path, DType element, const dist::Communicator& ranks)
      : path(final_path), comm(&ranks), dtype(element) {}

  ~Impl() {
    if (finished) return;
    for (auto& [key, dataset] : datasets) dataset.id.release();
    file.release();
    if (!comm->is_root()) return;
    std::error_code ignored;
    std::filesystem::remove(partial_path(path), ignored);
  }

  hid_t type() const { return state_type(dtype); }

  /// Collective. Apart from the constructor, so that the destructor cleans up after it.
  void create(const StateLayout& layout, const std::string& fingerprint) {
    const auto partial = partial_path(path);
    dist::agree(*comm, [&] {
      if (comm->is_root()) make_room(partial);
    });
    dist::agree(*comm, [&] {
      file = create_hdf5(partial, *comm);
      as_output(path, [&] {
        write_format(file.get(), states_format, states_version, fingerprint);
        for (const auto& [set, positions] : layout.positions) create_set(layout, set, positions);
      });
    });
  }

  void create_set(const StateLayout& layout, const std::string& set,
                  const std::vector<std::array<std::int64_t, 2>>& positions) {
    const auto group = create_group(file.get(), set);
    const auto rows = static_cast<std::int64_t>(positions.size());
    const std::array<hsize_t, 2> two_columns = {positions.size(), 2};
    const auto dataset =
        create_dataset(group.get(), positions_name, H5T_STD_I64LE, two_columns, nullptr);
    if (comm->is_root()) {
      write_block(dataset.get(), H5T_STD_I64LE, {0, 0}, two_columns, positions.data());
    }
    for (const auto& site : layout.sites) {
      const auto site_group = create_group(group.get(), site.site);
      const Chunk chunk = chunk_shape(rows, site, dtype);
      datasets.emplace(
          std::pair(set, site.site),
          Dataset{create_dataset(site_group.get(), states_name, type(),
                                 {positions.size(), static_cast<hsize_t>(site.width)}, &chunk),
                  rows, site.width});
    }
  }

  void write(const std::string& set, const std::string& site, dist::Range rows, dist::Range columns,
             std::span<const std::byte> data) {
    MRP_EXPECT(!finished);
    const auto found = datasets.find({set, site});
    MRP_EXPECT(found != datasets.end(), set + " " + site);
    const auto& dataset = found->second;
    MRP_EXPECT(0 <= rows.begin && rows.begin <= rows.end && rows.end <= dataset.rows);
    MRP_EXPECT(0 <= columns.begin && columns.begin <= columns.end && columns.end <= dataset.width);
    const std::int64_t row_bytes = columns.size() * element_bytes(dtype);
    MRP_EXPECT(std::cmp_equal(data.size(), rows.size() * row_bytes));
    if (data.empty()) return;
    const std::int64_t step = std::max<std::int64_t>(max_transfer_bytes / row_bytes, 1);
    as_output(path, [&] {
      for (std::int64_t row = rows.begin; row < rows.end; row += step) {
        const std::int64_t count = std::min(step, rows.end - row);
        write_block(dataset.id.get(), type(),
                    {static_cast<hsize_t>(row), static_cast<hsize_t>(columns.begin)},
                    {static_cast<hsize_t>(count), static_cast<hsize_t>(columns.size())},
                    data.data() + (row - rows.begin) * row_bytes);
      }
    });
  }

  /// Collective. Flushing syncs the bytes of every rank, then rank 0 gives the file its name.
  void finish() {
    MRP_EXPECT(!finished);
    dist::agree(*comm, [&] {
      as_output(path, [&] {
        for (auto& [key, dataset] : datasets) dataset.id.close();
        MRP_HDF5(H5Fflush(file.get(), H5F_SCOPE_GLOBAL));
      });
    });
    dist::agree(*comm, [&] { as_output(path, [&] { file.close(); }); });
    dist::agree(*comm, [&] {
      if (comm->is_root()) publish(path);
    });
    finished = true;
  }
};

StateWriter::StateWriter(const std::filesystem::path& path, const StateLayout& layout,
                         const std::string& fingerprint, const dist::Communicator& comm) {
  dist::agree(comm, [&] { check_layout(layout); });
  check_same_layout(layout, comm);
  const auto directory = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  dist::agree(comm, [&] {
    if (comm.is_root())
      require_space(directory, layout.bytes() + metadata_bytes, path.filename().string());
  });
  self_test(directory, comm);
  impl_ = std::make_unique<Impl>(path, layout.dtype, comm);
  impl_->create(layout, fingerprint);
}

StateWriter::~StateWriter() = default;

void StateWriter::write(const std::string& set, const std::string& site, dist::Range rows,
                        dist::Range columns, std::span<const std::byte> data) {
  impl_->write(set, site, rows, columns, data);
}

void StateWriter::finish() {
  impl_->finish();
}

namespace {

/// Two sites of two chunks a rank; the second with a slice that the chunks do not divide.
StateLayout test_layout(int ranks) {
  StateLayout layout;
  layout.positions["test"] = {{0, 1}, {0, 2}, {1, 1}};
  layout.sites = {{"even", 4 * ranks, ranks}, {"uneven", 4 * ranks + 1, ranks}};
  return layout;
}

bf16 test_value(std::int64_t row, std::int64_t column) {
  return float_to_bf16(static_cast<float>(1 + row + 5 * column));
}

std::vector<bf16> test_block(std::int64_t rows, dist::Range columns) {
  std::vector<bf16> block;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (auto column = columns.begin; column < columns.end; ++column) {
      block.push_back(test_value(row, column));
    }
  }
  return block;
}

void compare_with_test(const std::filesystem::path& path, const StateLayout& layout) {
  const StateReader reader(path);
  const auto rows = static_cast<std::int64_t>(layout.positions.at("test").size());
  for (const auto& site : layout.sites) {
    std::vector<float> found(static_cast<std::size_t>(rows * site.width));
    reader.read("test", site.site, {0, rows}, {0, site.width}, found);
    const auto expected = test_block(rows, {0, site.width});
    const bool same = std::equal(found.begin(), found.end(), expected.begin(),
                                 [](float x, bf16 y) { return x == bf16_to_float(y); });
    if (!same) throw dist::ResourceError("what is read back differs from what was written");
  }
}

}  // namespace

void self_test(const std::filesystem::path& directory, const dist::Communicator& comm) {
  const auto path = directory / comm.broadcast(fmt::format(".self_test.{}.h5", ::getpid()));
  const auto layout = test_layout(comm.size());
  std::exception_ptr failure;
  try {
    StateWriter writer;
    writer.impl_ = std::make_unique<StateWriter::Impl>(path, layout.dtype, comm);
    writer.impl_->create(layout, "");
    dist::agree(comm, [&] {
      const auto rows = static_cast<std::int64_t>(layout.positions.at("test").size());
      for (const auto& site : layout.sites) {
        const auto columns = dist::slice(site.width, comm.size(), comm.rank());
        const auto block = test_block(rows, columns);
        writer.write("test", site.site, {0, rows}, columns, std::as_bytes(std::span(block)));
      }
    });
    writer.finish();
    dist::agree(comm, [&] { compare_with_test(path, layout); });
  } catch (const dist::Error& error) {
    failure = std::make_exception_ptr(
        dist::ResourceError(fmt::format("{} is not fit for parallel HDF5 files: {}; choose another "
                                        "directory, or another MPI-IO layer "
                                        "(Open MPI: OMPI_MCA_io=romio321)",
                                        directory.string(), error.what())));
  }
  if (comm.is_root()) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  dist::throw_together(comm, failure);
}

}  // namespace mrp::io
