#include "io/hdf5.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <system_error>
#include <utility>

#include "io/direct_file.hpp"
#include "io/file.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

/// HDF5 prints its error stack unless told not to; ours is in the exception.
void silence() {
  static const herr_t once = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  check_hdf5(once, "H5Eset_auto2");
}

/// Description of the first visited, which is the innermost, entry of the error stack.
std::string innermost_message() {
  std::string text;
  const auto visit = [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
    auto& found = *static_cast<std::string*>(out);
    if (found.empty() && entry->desc != nullptr) found = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "unknown HDF5 error" : text;
}

/// Access properties common to all files: the checksummed format, and no locks, which network file
/// systems often lack; a published file never changes.
Hdf5Handle access_properties() {
  silence();
  auto access = MRP_HDF5_HANDLE(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  MRP_HDF5(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110));
  MRP_HDF5(H5Pset_file_locking(access.get(), false, true));
  return access;
}

Hdf5Handle create(const std::filesystem::path& path, hid_t access) {
  const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  MRP_HDF5(H5Pset_obj_track_times(properties.get(), false));
  return MRP_HDF5_HANDLE(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties.get(), access),
                         H5Fclose);
}

/// What HDF5 itself does not insist on: its signature at the very beginning (it would search on)
/// and a superblock with a checksum.
void check_superblock(const std::filesystem::path& path) {
  constexpr std::array<unsigned char, 8> signature = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  const File file(path);
  std::array<unsigned char, 9> head{};
  if (file.size() >= head.size()) file.read(0, std::as_writable_bytes(std::span(head)));
  if (!std::equal(signature.begin(), signature.end(), head.begin())) {
    throw InputError(path.string() + ": not an HDF5 file; give a file that mrp has written");
  }
  if (head[8] != 2 && head[8] != 3) {
    throw InputError(
        fmt::format("{}: HDF5 superblock version {} has no checksums; write the file in the format "
                    "of HDF5 1.10 "
                    "(h5py: libver=(\"v110\", \"v110\"))",
                    path.string(), head[8]));
  }
}

}  // namespace

Hdf5Error::Hdf5Error(const char* expression, const std::string& text, std::source_location where)
    : Error(dist::ExitCode::other, fmt::format("{}: {}", expression, text), where) {}

void check_hdf5(herr_t status, const char* expression, std::source_location where) {
  if (status < 0) throw Hdf5Error(expression, innermost_message(), where);
}

Hdf5Handle::Hdf5Handle(hid_t id, Close closer, const char* expression, std::source_location where)
    : id_(id), close_(closer) {
  if (id < 0) throw Hdf5Error(expression, innermost_message(), where);
}

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.release()), close_(other.close_) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

Hdf5Handle::~Hdf5Handle() {
  if (id_ >= 0) close_(id_);
}

void Hdf5Handle::close() {
  if (id_ >= 0) check_hdf5(close_(release()), "closing");
}

hid_t Hdf5Handle::release() noexcept {
  return std::exchange(id_, H5I_INVALID_HID);
}

hid_t bf16_type() {
  static const hid_t type = [] {
    const hid_t made = H5Tcopy(H5T_IEEE_F32LE);
    MRP_HDF5(H5Tset_fields(made, 15, 7, 8, 0, 7));
    MRP_HDF5(H5Tset_precision(made, 16));
    MRP_HDF5(H5Tset_size(made, 2));
    MRP_HDF5(H5Tset_ebias(made, 127));
    return made;
  }();
  return type;
}

Hdf5Handle open_hdf5(const std::filesystem::path& path) {
  check_superblock(path);
  return as_input(path, [&] {
    const auto access = access_properties();
    return MRP_HDF5_HANDLE(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  });
}

void make_room(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) {
    throw dist::ResourceError(
        fmt::format("cannot replace {} ({}); remove it", path.string(), error.message()));
  }
}

Hdf5Handle create_hdf5(const std::filesystem::path& path) {
  make_room(path);
  return as_output(path, [&] { return create(path, access_properties().get()); });
}

Hdf5Handle create_hdf5(const std::filesystem::path& path, const dist::Communicator& comm) {
  return as_output(path, [&] {
    const auto access = access_properties();
    MRP_HDF5(H5Pset_fapl_mpio(access.get(), comm.get(), MPI_INFO_NULL));
    // What is large begins with a page, as transfers past the page cache need.
    MRP_HDF5(H5Pset_alignment(access.get(), std::size_t{1} << 16, PageBuffer::page));
    return create(path, access.get());
  });
}

void write_hdf5(const std::filesystem::path& path, const std::string& format, std::int64_t version,
                const std::string& fingerprint, const std::function<void(hid_t)>& fill) {
  const auto partial = partial_path(path);
  try {
    as_output(path, [&] {
      auto file = create_hdf5(partial);
      write_format(file.get(), format, version, fingerprint);
      fill(file.get());
      file.close();
    });
    publish(path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
}

void write_format(hid_t file, const std::string& format, std::int64_t version,
                  const std::string& fingerprint) {
  write_attribute(file, "format", format);
  write_attribute(file, "version", version);
  write_attribute(file, "fingerprint", fingerprint);
}

void check_format(hid_t file, const std::string& format, std::int64_t version) {
  const auto found = read_text_attribute(file, "format");
  if (found != format) {
    throw InputError(fmt::format("{}: format is \"{}\", not \"{}\"; give the right file",
                                 object_name(file), found, format));
  }
  const auto number = read_int_attribute(file, "version");
  if (number != version) {
    throw InputError(
        fmt::format("{}: version {} of format {} is not supported (only {}); make it again",
                    object_name(file), number, format, version));
  }
}

std::string object_name(hid_t object) {
  const auto text = [object](auto get) {
    std::string name(4096, '\0');
    const auto length = get(object, name.data(), name.size());
    name.resize(std::min(name.size() - 1, static_cast<std::size_t>(std::max<ssize_t>(length, 0))));
    return name;
  };
  const auto inside = text(H5Iget_name);
  return text(H5Fget_name) + (inside == "/" ? "" : ":" + inside);
}

bool exists(hid_t parent, const std::string& name) {
  const htri_t found = H5Lexists(parent, name.c_str(), H5P_DEFAULT);
  check_hdf5(found, "H5Lexists");
  return found > 0;
}

std::vector<std::string> children(hid_t group) {
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  MRP_HDF5(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &names));
  return names;
}

namespace {

void check_child(hid_t parent, const std::string& name, H5O_type_t type, const char* kind) {
  MRP_EXPECT(!name.empty() && name != "." && name.find('/') == std::string::npos, name);
  if (!exists(parent, name)) {
    throw InputError(fmt::format("{}: {} \"{}\" is missing; make the file again",
                                 object_name(parent), kind, name));
  }
  H5L_info_t link{};
  MRP_HDF5(H5Lget_info(parent, name.c_str(), &link, H5P_DEFAULT));
  if (link.type != H5L_TYPE_HARD) {
    throw InputError(
        fmt::format("{}: \"{}\" is a soft or external link; store the data in the file",
                    object_name(parent), name));
  }
  H5O_info_t object{};
  MRP_HDF5(H5Oget_info_by_name2(parent, name.c_str(), &object, H5O_INFO_BASIC, H5P_DEFAULT));
  if (object.type != type) {
    throw InputError(fmt::format("{}: \"{}\" is not a {}", object_name(parent), name, kind));
  }
}

}  // namespace

Hdf5Handle open_group(hid_t parent, const std::string& name) {
  check_child(parent, name, H5O_TYPE_GROUP, "group");
  return MRP_HDF5_HANDLE(H5Gopen2(parent, name.c_str(), H5P_DEFAULT), H5Gclose);
}

Hdf5Handle open_dataset(hid_t parent, const std::string& name, hid_t access) {
  check_child(parent, name, H5O_TYPE_DATASET, "dataset");
  return MRP_HDF5_HANDLE(H5Dopen2(parent, name.c_str(), access), H5Dclose);
}

Hdf5Handle create_group(hid_t parent, const std::string& name) {
  MRP_EXPECT(!name.empty() && name != "." && name.find('/') == std::string::npos, name);
  const auto properties = MRP_HDF5_HANDLE(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  MRP_HDF5(H5Pset_obj_track_times(properties.get(), false));
  return MRP_HDF5_HANDLE(
      H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose);
}

}  // namespace mrp::io
