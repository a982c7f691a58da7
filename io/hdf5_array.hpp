// Whole datasets as vectors: types, ranks and sizes are checked before anything is allocated.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5.hpp"

namespace mrp::io {

/// T is std::int32_t, std::int64_t, std::uint8_t or double.
template <class T>
struct Array {
  std::vector<std::int64_t> shape;
  std::vector<T> data;  ///< row-major
};

/// Lengths of a dataset. @throws InputError unless it has `dimensions` of them, its data lie in
/// this file, unfiltered or deflated, and the file is large enough to hold what it claims.
std::vector<std::int64_t> checked_shape(hid_t dataset, int dimensions);

/// A whole dataset whose stored type is exactly T (little-endian). @throws InputError.
template <class T>
Array<T> read_array(hid_t parent, const std::string& name, int dimensions);

/// The same for one dimension; `length` −1 accepts any. @throws InputError.
template <class T>
std::vector<T> read_vector(hid_t parent, const std::string& name, std::int64_t length = -1);

/// Texts of fixed length, valid UTF-8. @throws InputError.
std::vector<std::string> read_texts(hid_t parent, const std::string& name);

/// Contiguous dataset. Serial files only.
template <class T>
void write_array(hid_t parent, const std::string& name, std::span<const std::int64_t> shape,
                 std::span<const T> data);

/// The same for texts, each as long as the longest.
void write_texts(hid_t parent, const std::string& name, const std::vector<std::string>& texts);

}  // namespace mrp::io
