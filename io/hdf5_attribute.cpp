// The attributes of io/hdf5.hpp.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/hdf5.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

Hdf5Handle create_attribute(hid_t object, const std::string& name, hid_t type) {
  const auto space = MRP_HDF5_HANDLE(H5Screate(H5S_SCALAR), H5Sclose);
  return MRP_HDF5_HANDLE(
      H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
}

void write(hid_t object, const std::string& name, hid_t type, const void* value) {
  const auto attribute = create_attribute(object, name, type);
  MRP_HDF5(H5Awrite(attribute.get(), type, value));
}

struct OpenAttribute {
  Hdf5Handle id;
  Hdf5Handle type;
};

/// One value of class `wanted`. `kind` names it for the message.
OpenAttribute open_attribute(hid_t object, const std::string& name, H5T_class_t wanted,
                             const char* kind) {
  if (!has_attribute(object, name)) {
    throw InputError(fmt::format("{}: attribute \"{}\" is missing; make the file again",
                                 object_name(object), name));
  }
  auto id = MRP_HDF5_HANDLE(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  auto type = MRP_HDF5_HANDLE(H5Aget_type(id.get()), H5Tclose);
  const auto space = MRP_HDF5_HANDLE(H5Aget_space(id.get()), H5Sclose);
  if (H5Tget_class(type.get()) != wanted || H5Sget_simple_extent_npoints(space.get()) != 1) {
    throw InputError(
        fmt::format("{}: attribute \"{}\" is not one {}", object_name(object), name, kind));
  }
  return {std::move(id), std::move(type)};
}

}  // namespace

bool has_attribute(hid_t object, const std::string& name) {
  const htri_t found = H5Aexists(object, name.c_str());
  check_hdf5(found, "H5Aexists");
  return found > 0;
}

bool is_fixed_text(hid_t type) {
  return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
}

Hdf5Handle fixed_text_type(std::size_t bytes) {
  auto type = MRP_HDF5_HANDLE(H5Tcopy(H5T_C_S1), H5Tclose);
  // HDF5 has no strings of length zero: an empty text is one null byte.
  MRP_HDF5(H5Tset_size(type.get(), std::max<std::size_t>(bytes, 1)));
  MRP_HDF5(H5Tset_strpad(type.get(), H5T_STR_NULLPAD));
  MRP_HDF5(H5Tset_cset(type.get(), H5T_CSET_UTF8));
  return type;
}

void write_attribute(hid_t object, const std::string& name, const std::string& value) {
  const auto type = fixed_text_type(value.size());
  write(object, name, type.get(), value.c_str());
}

void write_attribute(hid_t object, const std::string& name, std::int64_t value) {
  write(object, name, H5T_STD_I64LE, &value);
}

void write_attribute(hid_t object, const std::string& name, double value) {
  write(object, name, H5T_IEEE_F64LE, &value);
}

std::string read_text_attribute(hid_t object, const std::string& name) {
  const auto attribute = open_attribute(object, name, H5T_STRING, "text");
  if (!is_fixed_text(attribute.type.get())) {
    throw InputError(fmt::format("{}: attribute \"{}\" is not a text of fixed length",
                                 object_name(object), name));
  }
  std::string text(H5Tget_size(attribute.type.get()), '\0');
  MRP_HDF5(H5Aread(attribute.id.get(), attribute.type.get(), text.data()));
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

std::int64_t read_int_attribute(hid_t object, const std::string& name) {
  const auto attribute = open_attribute(object, name, H5T_INTEGER, "integer");
  std::int64_t value = 0;
  MRP_HDF5(H5Aread(attribute.id.get(), H5T_NATIVE_INT64, &value));
  return value;
}

double read_real_attribute(hid_t object, const std::string& name) {
  const auto attribute = open_attribute(object, name, H5T_FLOAT, "real number");
  double value = 0;
  MRP_HDF5(H5Aread(attribute.id.get(), H5T_NATIVE_DOUBLE, &value));
  return value;
}

}  // namespace mrp::io
