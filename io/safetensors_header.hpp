// The JSON header of a safetensors file, private to safetensors.cpp. Parsed event by event, so that
// a hostile header costs no more memory than the tensors it names.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.hpp"

namespace mrp::io {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< as they stand; begin and end relative to the data
  std::map<std::string, std::string> metadata;
};

/// Checks the header by itself: syntax, fields, types, and that each tensor's range has the size of
/// its shape.
/// @throws InputError "SOURCE: rule".
SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& source);

/// Bytes of a tensor. @throws InputError "WHAT: ...": the number of elements or bits does not fit
/// 64 bits, or the bits do not fill whole bytes.
std::uint64_t tensor_bytes(DType dtype, const std::vector<std::int64_t>& shape,
                           const std::string& what);

}  // namespace mrp::io
