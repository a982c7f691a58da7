// A Hugging Face checkpoint directory: one safetensors file, or several with an index.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dist/partition.hpp"
#include "io/safetensors.hpp"

namespace mrp::io {

/// Opens every shard and checks the index against them: names stay inside the directory (also after
/// symbolic links), each mapped tensor exists, each tensor is mapped once. Not collective.
class Checkpoint {
 public:
  /// @throws InputError that names file, tensor and rule.
  explicit Checkpoint(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const noexcept { return directory_; }
  const std::vector<SafetensorsFile>& files() const noexcept { return files_; }
  bool has_index() const noexcept { return has_index_; }
  /// Other files of the directory (config, tokenizer, ...) that belong to the checkpoint; never weights of another format.
  std::vector<std::filesystem::path> side_files() const;

  bool contains(const std::string& tensor) const { return where_.contains(tensor); }
  /// @throws InputError "no tensor NAME in DIRECTORY".
  const TensorInfo& info(const std::string& tensor) const;
  const SafetensorsFile& file_of(const std::string& tensor) const;
  std::vector<std::string> names() const;

  /// The block rows × columns of a matrix [m × n] in its stored type, packed row-major. Only these bytes are read.
  std::vector<std::byte> read_block(const std::string& tensor, dist::Range rows,
                                    dist::Range columns) const;
  /// The whole tensor.
  std::vector<std::byte> read(const std::string& tensor) const;

  /// Names, sizes, headers and modification times of all files: changes whenever a weight file is rewritten.
  std::string fingerprint() const;

 private:
  struct Place {
    std::size_t file;
    std::size_t tensor;
  };
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> where_;
  bool has_index_ = false;
};

}  // namespace mrp::io
