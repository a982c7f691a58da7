// HDF5 handles with an owner, one exception line instead of an error stack, and the rules that all
// our files follow so that a damaged one is an error and not a crash inside the library:
//  - the format of HDF5 1.10 ("v110"), which protects all metadata by checksums; older files are
//  refused;
//  - texts of fixed length only: HDF5 follows the unprotected references of variable-length ones;
//  - no links and no data that lead out of the file.
// Object times are not stored, so equal content means equal bytes.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <source_location>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::io {

/// An HDF5 call that failed. Readers turn it into InputError, writers into ResourceError (as_input,
/// as_output).
struct Hdf5Error : dist::Error {
  Hdf5Error(const char* expression, const std::string& text, std::source_location where);
};

/// Owns any HDF5 identifier (file, group, dataset, type, space, property list). Move-only.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  /// @throws Hdf5Error if `id` is negative.
  Hdf5Handle(hid_t id, Close closer, const char* expression,
             std::source_location where = std::source_location::current());
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle();

  hid_t get() const noexcept { return id_; }
  /// Closes now. @throws Hdf5Error, for example when the last bytes find no space.
  void close();
  /// Gives up ownership without closing.
  hid_t release() noexcept;

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// @throws Hdf5Error with the innermost message of HDF5's error stack if `status` is negative.
void check_hdf5(herr_t status, const char* expression,
                std::source_location where = std::source_location::current());

/// Runs `work`; an Hdf5Error becomes an error that names `path` and says what to do.
template <class Work>
auto as_input(const std::filesystem::path& path, Work&& work) {
  try {
    return work();
  } catch (const Hdf5Error& error) {
    throw dist::InputError(
        path.string() + ": damaged or unreadable HDF5 file (" + error.what() + "); make it again",
        error.where());
  }
}
template <class Work>
auto as_output(const std::filesystem::path& path, Work&& work) {
  try {
    return work();
  } catch (const Hdf5Error& error) {
    throw dist::ResourceError(path.string() + ": cannot write (" + error.what() +
                                  "); check space and permissions of the directory",
                              error.where());
  }
}

/// bfloat16 as an HDF5 floating-point type, so that h5py and h5dump read it as numbers. Not to be
/// closed.
hid_t bf16_type();

/// Read-only and serial. @throws InputError: missing, no HDF5, older format, not closed by its
/// writer.
Hdf5Handle open_hdf5(const std::filesystem::path& path);
/// Removes the file or link at `path`, if any, so that a new file is not written through a link.
/// @throws ResourceError.
void make_room(const std::filesystem::path& path);
/// An empty file in place of `path`; serial. @throws ResourceError.
Hdf5Handle create_hdf5(const std::filesystem::path& path);
/// One file opened by all ranks of `comm` through MPI-IO; nothing may lie at `path`. Collective
/// over `comm`, and so is closing. @throws ResourceError, perhaps on some ranks only.
Hdf5Handle create_hdf5(const std::filesystem::path& path, const dist::Communicator& comm);
/// Writes the attributes `format`, `version` and `fingerprint` of the root group.
void write_format(hid_t file, const std::string& format, std::int64_t version,
                  const std::string& fingerprint);
/// A new file that appears under its name complete or not at all: `fill(file)` writes what follows
/// those attributes. Serial. @throws ResourceError.
void write_hdf5(const std::filesystem::path& path, const std::string& format, std::int64_t version,
                const std::string& fingerprint, const std::function<void(hid_t)>& fill);
/// @throws InputError unless `file` has exactly this format and version.
void check_format(hid_t file, const std::string& format, std::int64_t version);

/// "file:/path/of/object", for messages.
std::string object_name(hid_t object);
bool exists(hid_t parent, const std::string& name);
/// Names of the links of `group`, sorted.
std::vector<std::string> children(hid_t group);
/// Direct children of `parent` only, through hard links only: soft and external links could lead
/// anywhere. @throws InputError when missing, of another kind, or a link.
Hdf5Handle open_group(hid_t parent, const std::string& name);
Hdf5Handle open_dataset(hid_t parent, const std::string& name, hid_t access = H5P_DEFAULT);
Hdf5Handle create_group(hid_t parent, const std::string& name);

/// Whether `type` is a text that is stored in place.
bool is_fixed_text(hid_t type);
/// UTF-8 of that many bytes, the rest null.
Hdf5Handle fixed_text_type(std::size_t bytes);
/// Texts are written as UTF-8.
void write_attribute(hid_t object, const std::string& name, const std::string& value);
void write_attribute(hid_t object, const std::string& name, std::int64_t value);
void write_attribute(hid_t object, const std::string& name, double value);
bool has_attribute(hid_t object, const std::string& name);
/// Texts of fixed length, integers and reals of any width.
/// @throws InputError when missing or of another type.
std::string read_text_attribute(hid_t object, const std::string& name);
std::int64_t read_int_attribute(hid_t object, const std::string& name);
double read_real_attribute(hid_t object, const std::string& name);

}  // namespace mrp::io

/// MRP_HDF5(H5Fflush(file, scope)): the call, checked.
#define MRP_HDF5(call) ::mrp::io::check_hdf5((call), #call)
/// MRP_HDF5_HANDLE(H5Scopy(id), H5Sclose): the identifier, checked and owned.
#define MRP_HDF5_HANDLE(call, close) ::mrp::io::Hdf5Handle((call), (close), #call)
