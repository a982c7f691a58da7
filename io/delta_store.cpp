#include "io/delta_store.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/hdf5_array.hpp"
#include "io/parallel_file.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

constexpr const char* deltas_format = "mrp.deltas";
constexpr std::int64_t deltas_version = 1;

void check_layout(const DeltaLayout& layout) {
  MRP_EXPECT(!layout.tensors.empty());
  for (const auto& [name, shape] : layout.tensors) {
    MRP_EXPECT(shape.size() == 1 || shape.size() == 2, name);
    MRP_EXPECT(std::all_of(shape.begin(), shape.end(), [](auto x) { return x > 0; }), name);
  }
}

std::string description(const DeltaLayout& layout) {
  std::string text = layout.summary;
  for (const auto& [name, shape] : layout.tensors) {
    text += fmt::format("/{} {}", name, fmt::join(shape, " "));
  }
  return text;
}

}  // namespace

std::uint64_t DeltaLayout::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [name, shape] : tensors) {
    std::uint64_t size = sizeof(float);
    for (const auto length : shape) size *= static_cast<std::uint64_t>(length);
    sum += size;
  }
  return sum;
}

struct DeltaWriter::Impl {
  ParallelFile file;
  std::map<std::string, std::size_t> datasets;

  Impl(const std::filesystem::path& path, const dist::Communicator& comm) : file(path, comm) {}
};

DeltaWriter::DeltaWriter(const std::filesystem::path& path, const DeltaLayout& layout,
                         const std::string& fingerprint, const dist::Communicator& comm) {
  dist::agree(comm, [&] { check_layout(layout); });
  require_same(description(layout), comm);
  require_fit(path, layout.bytes(), comm);
  impl_ = std::make_unique<Impl>(path, comm);
  impl_->file.create(deltas_format, deltas_version, fingerprint, [&](hid_t root) {
    write_attribute(root, "summary", layout.summary);
    for (const auto& [name, shape] : layout.tensors) {
      impl_->datasets[name] = impl_->file.add_dataset(root, name, H5T_IEEE_F32LE, shape);
    }
  });
}

DeltaWriter::~DeltaWriter() = default;

void DeltaWriter::write(const std::string& tensor, dist::Range rows, dist::Range columns,
                        std::span<const float> data) {
  const auto found = impl_->datasets.find(tensor);
  MRP_EXPECT(found != impl_->datasets.end(), tensor);
  impl_->file.write(found->second, rows, columns, std::as_bytes(data));
}

void DeltaWriter::finish() {
  impl_->file.finish();
}

struct DeltaReader::Impl {
  std::filesystem::path path;
  Hdf5Handle file;
  DeltaLayout layout;
  std::string fingerprint;

  // The dataset that was read last stays open.
  std::string current;
  Hdf5Handle dataset;

  explicit Impl(const std::filesystem::path& file_path)
      : path(file_path), file(open_hdf5(file_path)) {
    as_input(path, [&] {
      check_format(file.get(), deltas_format, deltas_version);
      fingerprint = read_text_attribute(file.get(), "fingerprint");
      layout.summary = read_text_attribute(file.get(), "summary");
      for (const auto& name : children(file.get())) {
        layout.tensors[name] = tensor_shape(open_dataset(file.get(), name).get());
      }
      if (layout.tensors.empty()) {
        throw InputError(path.string() + ": holds no tensors; run refine again");
      }
    });
  }

  static std::vector<std::int64_t> tensor_shape(hid_t tensor) {
    const auto type = MRP_HDF5_HANDLE(H5Dget_type(tensor), H5Tclose);
    if (H5Tequal(type.get(), H5T_IEEE_F32LE) <= 0) {
      throw InputError(object_name(tensor) + ": elements are not f32; run refine again");
    }
    const auto space = MRP_HDF5_HANDLE(H5Dget_space(tensor), H5Sclose);
    const auto shape = checked_shape(tensor, H5Sget_simple_extent_ndims(space.get()) == 1 ? 1 : 2);
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
      throw InputError(object_name(tensor) + ": is empty; run refine again");
    }
    return shape;
  }

  void select(const std::string& tensor) {
    if (current == tensor) return;
    dataset = open_dataset(file.get(), tensor);
    current = tensor;
  }

  void read(dist::Range rows, dist::Range columns, bool is_vector, float* out) const {
    const std::array start = {static_cast<hsize_t>(rows.begin),
                              static_cast<hsize_t>(columns.begin)};
    const std::array count = {static_cast<hsize_t>(rows.size()),
                              static_cast<hsize_t>(columns.size())};
    const std::size_t skip = is_vector ? 1 : 0;
    const auto file_space = MRP_HDF5_HANDLE(H5Dget_space(dataset.get()), H5Sclose);
    MRP_HDF5(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data() + skip, nullptr,
                                 count.data() + skip, nullptr));
    const auto memory_space = MRP_HDF5_HANDLE(H5Screate_simple(2, count.data(), nullptr), H5Sclose);
    MRP_HDF5(H5Dread(dataset.get(), H5T_IEEE_F32LE, memory_space.get(), file_space.get(),
                     H5P_DEFAULT, out));
  }
};

DeltaReader::DeltaReader(const std::filesystem::path& path) : impl_(std::make_unique<Impl>(path)) {}
DeltaReader::~DeltaReader() = default;
DeltaReader::DeltaReader(DeltaReader&&) noexcept = default;
DeltaReader& DeltaReader::operator=(DeltaReader&&) noexcept = default;

const DeltaLayout& DeltaReader::layout() const {
  return impl_->layout;
}
const std::string& DeltaReader::fingerprint() const {
  return impl_->fingerprint;
}

void DeltaReader::read(const std::string& tensor, dist::Range rows, dist::Range columns,
                       std::span<float> out) const {
  const auto found = impl_->layout.tensors.find(tensor);
  if (found == impl_->layout.tensors.end()) {
    throw InputError(
        fmt::format("{}: no change of tensor {}; run refine again", impl_->path.string(), tensor));
  }
  const auto& shape = found->second;
  const bool is_vector = shape.size() == 1;
  MRP_EXPECT(0 <= rows.begin && rows.begin <= rows.end && rows.end <= (is_vector ? 1 : shape[0]));
  MRP_EXPECT(0 <= columns.begin && columns.begin <= columns.end && columns.end <= shape.back());
  MRP_EXPECT(std::cmp_equal(out.size(), rows.size() * columns.size()));
  if (out.empty()) return;
  as_input(impl_->path, [&] {
    impl_->select(tensor);
    impl_->read(rows, columns, is_vector, out.data());
  });
  if (!std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); })) {
    throw InputError(fmt::format("{}: the change of tensor {} has NaN or Inf; run refine again",
                                 impl_->path.string(), tensor));
  }
}

}  // namespace mrp::io
