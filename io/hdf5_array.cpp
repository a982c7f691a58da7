#include "io/hdf5_array.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "dist/checked_cast.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

/// Deflate cannot shrink anything further than this.
constexpr std::uint64_t largest_compression = 1032;

template <class T>
hid_t stored_type() {
  if constexpr (std::is_same_v<T, std::int32_t>) return H5T_STD_I32LE;
  if constexpr (std::is_same_v<T, std::int64_t>) return H5T_STD_I64LE;
  if constexpr (std::is_same_v<T, std::uint8_t>) return H5T_STD_U8LE;
  if constexpr (std::is_same_v<T, double>) return H5T_IEEE_F64LE;
}

/// Refuses data that lie elsewhere or in unknown filters. Returns whether they are compressed.
bool check_layout(hid_t dataset) {
  const auto properties = MRP_HDF5_HANDLE(H5Dget_create_plist(dataset), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  const bool here = layout == H5D_COMPACT || layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED;
  if (!here || H5Pget_external_count(properties.get()) != 0) {
    throw InputError(object_name(dataset) +
                     ": its data lie in another file; store them in this one");
  }
  const int filters = H5Pget_nfilters(properties.get());
  check_hdf5(filters, "H5Pget_nfilters");
  for (unsigned i = 0; i < static_cast<unsigned>(filters); ++i) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    const auto filter =
        H5Pget_filter2(properties.get(), i, &flags, &values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE) {
      throw InputError(object_name(dataset) + ": only deflate compression is supported");
    }
  }
  return filters > 0;
}

/// The largest number of bytes that the data of `dataset` can have.
std::uint64_t possible_bytes(hid_t dataset, bool compressed) {
  const auto file = MRP_HDF5_HANDLE(H5Iget_file_id(dataset), H5Fclose);
  hsize_t file_size = 0;
  MRP_HDF5(H5Fget_filesize(file.get(), &file_size));
  const std::uint64_t stored = std::min<std::uint64_t>(H5Dget_storage_size(dataset), file_size);
  return compressed ? stored * largest_compression : stored;
}

bool is_utf8(const std::string& text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t extra = lead < 0x80   ? 0
                              : lead < 0xc2 ? 4
                              : lead < 0xe0 ? 1
                              : lead < 0xf0 ? 2
                              : lead < 0xf5 ? 3
                                            : 4;
    if (extra == 4 || text.size() - i <= extra) return false;
    const auto at = [&](std::size_t j) { return static_cast<unsigned char>(text[i + j]); };
    for (std::size_t j = 1; j <= extra; ++j) {
      if ((at(j) & 0xc0) != 0x80) return false;
    }
    // Overlong forms, surrogates and values above U+10FFFF.
    if ((lead == 0xe0 && at(1) < 0xa0) || (lead == 0xed && at(1) > 0x9f) ||
        (lead == 0xf0 && at(1) < 0x90) || (lead == 0xf4 && at(1) > 0x8f)) {
      return false;
    }
    i += extra + 1;
  }
  return true;
}

std::vector<std::string> read_fixed_texts(hid_t dataset, hid_t type, std::size_t count) {
  const std::size_t size = H5Tget_size(type);
  std::string raw(count * size, '\0');
  MRP_HDF5(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, raw.data()));
  std::vector<std::string> result(count);
  for (std::size_t i = 0; i < count; ++i) {
    result[i] = raw.substr(i * size, size);
    result[i].resize(std::min(size, result[i].find('\0')));
  }
  return result;
}

}  // namespace

std::vector<std::int64_t> checked_shape(hid_t dataset, int dimensions) {
  const auto space = MRP_HDF5_HANDLE(H5Dget_space(dataset), H5Sclose);
  if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE ||
      H5Sget_simple_extent_ndims(space.get()) != dimensions) {
    throw InputError(fmt::format("{}: must have {} dimension{}", object_name(dataset), dimensions,
                                 dimensions == 1 ? "" : "s"));
  }
  std::vector<hsize_t> lengths(static_cast<std::size_t>(dimensions));
  MRP_HDF5(H5Sget_simple_extent_dims(space.get(), lengths.data(), nullptr));
  const auto type = MRP_HDF5_HANDLE(H5Dget_type(dataset), H5Tclose);
  const std::uint64_t limit = possible_bytes(dataset, check_layout(dataset));
  std::uint64_t bytes = H5Tget_size(type.get());
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (const std::uint64_t length : lengths) {
    // A length of zero must not hide an absurd one.
    bytes = length > most / std::max<std::uint64_t>(bytes, 1) ? most : bytes * length;
  }
  if (bytes > limit) {
    throw InputError(fmt::format("{}: claims {} bytes, the file holds {}; make it again",
                                 object_name(dataset), bytes, limit));
  }
  return {lengths.begin(), lengths.end()};
}

template <class T>
Array<T> read_array(hid_t parent, const std::string& name, int dimensions) {
  const auto dataset = open_dataset(parent, name);
  const auto type = MRP_HDF5_HANDLE(H5Dget_type(dataset.get()), H5Tclose);
  if (H5Tequal(type.get(), stored_type<T>()) <= 0) {
    throw InputError(fmt::format("{}: elements must be {} of {} bits, little-endian",
                                 object_name(dataset.get()),
                                 std::is_integral_v<T> ? "integers" : "reals", 8 * sizeof(T)));
  }
  Array<T> array{checked_shape(dataset.get(), dimensions), {}};
  std::size_t count = 1;
  for (const auto length : array.shape) count *= static_cast<std::size_t>(length);
  array.data.resize(count);
  if (count > 0) {
    MRP_HDF5(
        H5Dread(dataset.get(), stored_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data.data()));
  }
  return array;
}

template <class T>
std::vector<T> read_vector(hid_t parent, const std::string& name, std::int64_t length) {
  auto array = read_array<T>(parent, name, 1);
  if (length >= 0 && array.shape[0] != length) {
    throw InputError(
        fmt::format("{}: dataset \"{}\" has {} elements instead of {}; make the file again",
                    object_name(parent), name, array.shape[0], length));
  }
  return std::move(array.data);
}

std::vector<std::string> read_texts(hid_t parent, const std::string& name) {
  const auto dataset = open_dataset(parent, name);
  const auto type = MRP_HDF5_HANDLE(H5Dget_type(dataset.get()), H5Tclose);
  if (!is_fixed_text(type.get())) {
    throw InputError(object_name(dataset.get()) + ": elements must be texts of fixed length");
  }
  const auto count = static_cast<std::size_t>(checked_shape(dataset.get(), 1)[0]);
  if (count == 0) return {};
  auto texts = read_fixed_texts(dataset.get(), type.get(), count);
  for (std::size_t i = 0; i < count; ++i) {
    if (!is_utf8(texts[i])) {
      throw InputError(fmt::format("{}: text {} is not UTF-8", object_name(dataset.get()), i));
    }
  }
  return texts;
}

namespace {

/// Contiguous.
void write_dataset(hid_t parent, const std::string& name, const std::vector<hsize_t>& lengths,
                   hid_t type, const void* data) {
  const auto space = MRP_HDF5_HANDLE(
      H5Screate_simple(static_cast<int>(lengths.size()), lengths.data(), nullptr), H5Sclose);
  const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  MRP_HDF5(H5Pset_obj_track_times(properties.get(), false));
  const auto dataset = MRP_HDF5_HANDLE(H5Dcreate2(parent, name.c_str(), type, space.get(),
                                                  H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                                       H5Dclose);
  const bool empty = std::find(lengths.begin(), lengths.end(), 0U) != lengths.end();
  if (!empty) MRP_HDF5(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
}

}  // namespace

template <class T>
void write_array(hid_t parent, const std::string& name, std::span<const std::int64_t> shape,
                 std::span<const T> data) {
  std::vector<hsize_t> lengths;
  std::size_t count = 1;
  for (const auto length : shape) {
    lengths.push_back(dist::checked_cast<hsize_t>(length, name.c_str()));
    count *= static_cast<std::size_t>(length);
  }
  MRP_EXPECT(count == data.size(), name);
  write_dataset(parent, name, lengths, stored_type<T>(), data.data());
}

void write_texts(hid_t parent, const std::string& name, const std::vector<std::string>& texts) {
  std::size_t longest = 1;
  for (const std::string& text : texts) longest = std::max(longest, text.size());
  std::string raw;
  for (const std::string& text : texts) raw.append(text).append(longest - text.size(), '\0');
  write_dataset(parent, name, {texts.size()}, fixed_text_type(longest).get(), raw.data());
}

#define MRP_INSTANTIATE(T)                                                               \
  template Array<T> read_array<T>(hid_t, const std::string&, int);                       \
  template std::vector<T> read_vector<T>(hid_t, const std::string&, std::int64_t);       \
  template void write_array<T>(hid_t, const std::string&, std::span<const std::int64_t>, \
                               std::span<const T>);
MRP_INSTANTIATE(std::int32_t)
MRP_INSTANTIATE(std::int64_t)
MRP_INSTANTIATE(std::uint8_t)
MRP_INSTANTIATE(double)
#undef MRP_INSTANTIATE

}  // namespace mrp::io
