// HDF5 handles with an owner; the library's error stack becomes one exception line.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "dist/error.hpp"

namespace mrp::io {

struct Hdf5Error : dist::Error {
  Hdf5Error(const char* expression, const std::string& text, std::source_location where);
};

/// Owns any HDF5 identifier (file, group, dataset, type, space, property list). Move-only.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  /// @throws Hdf5Error if `id` is negative.
  Hdf5Handle(hid_t id, Close close, const char* expression,
             std::source_location where = std::source_location::current());
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle();
  hid_t get() const noexcept { return id_; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// @throws Hdf5Error with the innermost message of HDF5's error stack if `status` is negative.
void check_hdf5(herr_t status, const char* expression,
                std::source_location where = std::source_location::current());

/// bfloat16 as an HDF5 floating-point type, so that h5py and h5dump read it as numbers.
hid_t bf16_type();

/// Serial access. Files of other people: opened read-only, a foreign format is an InputError.
Hdf5Handle open_hdf5(const std::filesystem::path& path);
Hdf5Handle create_hdf5(const std::filesystem::path& path);
/// One file opened by all ranks of `comm` through MPI-IO. Collective over `comm`.
Hdf5Handle open_hdf5(const std::filesystem::path& path, const dist::Communicator& comm);
Hdf5Handle create_hdf5(const std::filesystem::path& path, const dist::Communicator& comm);

bool exists(hid_t parent, const std::string& name);
std::vector<std::string> children(hid_t group);

void write_attribute(hid_t object, const std::string& name, const std::string& value);
void write_attribute(hid_t object, const std::string& name, std::int64_t value);
void write_attribute(hid_t object, const std::string& name, double value);
/// @throws InputError when missing or of another type.
std::string read_text_attribute(hid_t object, const std::string& name);
std::int64_t read_int_attribute(hid_t object, const std::string& name);
double read_real_attribute(hid_t object, const std::string& name);

}  // namespace mrp::io

#define MRP_HDF5(call) ::mrp::io::check_hdf5((call), #call)
