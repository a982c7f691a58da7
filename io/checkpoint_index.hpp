// Names that an index file may give, and what lies in a checkpoint directory. Private to
// checkpoint.cpp.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mrp::io {

/// The weight_map of an index: tensor → file name, every name checked by itself.
/// @throws InputError naming `source`.
std::map<std::string, std::string> parse_weight_map(std::string_view text,
                                                    const std::string& source);

/// @throws InputError naming `what` and both names if two of `names` differ only by the case of
/// ASCII letters, which some file systems cannot tell apart.
void refuse_case_clashes(const std::vector<std::string>& names, const std::string& what);

/// @throws InputError if `directory / name` does not exist or is a symbolic link that leaves the
/// directory.
void require_inside(const std::filesystem::path& directory, const std::string& name);

/// Names of all entries of `directory`, sorted. @throws InputError if it cannot be listed.
std::vector<std::string> list_directory(const std::filesystem::path& directory);

/// Those of them that end in ".safetensors".
std::vector<std::string> safetensors_names(const std::filesystem::path& directory);

/// Whether a file of this name is copied with a checkpoint: not hidden, unfinished, weights of any
/// format, or an index.
bool is_side_file(std::string_view name);

}  // namespace mrp::io
