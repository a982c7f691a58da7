// What the writer and the reader of states.h5 have in common.
#pragma once

#include "io/dtype.hpp"
#include "io/hdf5.hpp"

namespace mrp::io {

constexpr const char* states_format = "mrp.states";
constexpr std::int64_t states_version = 1;
constexpr const char* positions_name = "positions";
constexpr const char* states_name = "hidden_states";

/// The stored type of hidden states; not to be closed.
inline hid_t state_type(DType dtype) {
  return dtype == DType::bf16 ? bf16_type() : H5T_IEEE_F32LE;
}

}  // namespace mrp::io
