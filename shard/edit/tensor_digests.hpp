// What the tensors of a checkpoint hold, told by hashes.
#pragma once

#include <map>
#include <string>

#include "dist/communicator.hpp"
#include "io/checkpoint.hpp"
#include "io/manifest.hpp"

namespace mrp::shard {

/// Collective over `comm`. SHA-256 of the bytes of every tensor, by name.
/// @throws InputError, ResourceError as reading does.
std::map<std::string, std::string> tensor_digests(const io::Checkpoint& checkpoint,
                                                  const dist::Communicator& comm);

/// One for all of them, whatever the files that they lie in.
std::string combined_digest(const std::map<std::string, std::string>& digests);

/// The digests among what merge found out.
std::map<std::string, std::string> digests_of(
    const std::map<std::string, io::TensorRecord>& records);

}  // namespace mrp::shard
