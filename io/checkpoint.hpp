// A Hugging Face checkpoint directory: one safetensors file, or several with an index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dist/partition.hpp"
#include "io/safetensors.hpp"

namespace mrp::io {

/// Opens every shard and checks the index against them: names stay inside the directory (also after
/// symbolic links), each mapped tensor exists, each tensor is mapped once. Not collective.
class Checkpoint {
 public:
  static constexpr const char* single_name = "model.safetensors";
  static constexpr const char* index_name = "model.safetensors.index.json";

  /// @throws InputError that names file, tensor and rule.
  explicit Checkpoint(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const noexcept { return directory_; }
  /// By file name; files()[i].path() is directory() / name.
  const std::vector<SafetensorsFile>& files() const noexcept { return files_; }
  bool has_index() const noexcept { return has_index_; }
  /// The index as it stands in its file, unknown metadata included; empty without one.
  const std::string& index_text() const noexcept { return index_text_; }
  /// Names of safetensors files in the directory that the index does not name, sorted: remains of
  /// another save, no part of the checkpoint.
  const std::vector<std::string>& stale_files() const noexcept { return stale_files_; }
  /// Other files of the directory (config, tokenizer, ...) that belong to the checkpoint, sorted;
  /// never weights of another format, hidden files or folders. @throws InputError for a link that
  /// leaves the directory.
  std::vector<std::filesystem::path> side_files() const;

  bool contains(const std::string& tensor) const { return where_.contains(tensor); }
  /// @throws InputError "no tensor NAME in DIRECTORY".
  const TensorInfo& info(const std::string& tensor) const;
  const SafetensorsFile& file_of(const std::string& tensor) const;
  /// Sorted.
  std::vector<std::string> names() const;

  /// The block rows × columns of a matrix [m × n] in its stored type, packed row-major. Gaps of
  /// less than 8 KiB between row pieces are read through, longer ones skipped. @throws InputError
  /// unless the tensor is a matrix that holds the block.
  std::vector<std::byte> read_block(const std::string& tensor, dist::Range rows,
                                    dist::Range columns) const;
  /// The whole tensor.
  std::vector<std::byte> read(const std::string& tensor) const;

  /// Names, sizes, headers and modification times of the weight files, and the content of the index
  /// and of config.json: changes whenever one of them is rewritten.
  std::string fingerprint() const;

 private:
  struct Place {
    std::size_t file;
    std::size_t tensor;
  };
  void open_single();
  void open_indexed();
  void place_tensors();
  const Place& place(const std::string& tensor) const;

  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> where_;
  std::vector<std::string> stale_files_;
  std::string index_text_;
  bool has_index_ = false;
};

}  // namespace mrp::io
