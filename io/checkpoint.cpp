#include "io/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <system_error>

#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/checkpoint_index.hpp"
#include "io/hash.hpp"
#include "io/json.hpp"

namespace mrp::io {

using dist::InputError;
namespace fs = std::filesystem;

namespace {

std::string shape_text(const TensorInfo& info) {
  return fmt::format("[{}]", fmt::join(info.shape, ", "));
}

std::uint64_t to_unsigned(std::int64_t value) {
  return static_cast<std::uint64_t>(value);
}

/// A strip of a row-major matrix in a file: `rows` pieces of `piece` bytes, `stride` apart, from
/// `begin`.
struct Strip {
  std::uint64_t begin, rows, piece, stride;
};

void read_strip(const SafetensorsFile& file, const Strip& strip, std::span<std::byte> out) {
  // Measured in the page cache: a call costs as much as copying 7 KiB, so smaller gaps are read
  // through. The buffer stays in a core's own cache.
  constexpr std::uint64_t worthwhile_gap = 8u << 10;
  constexpr std::uint64_t buffer_bytes = 256u << 10;
  const auto piece = static_cast<std::size_t>(strip.piece);
  if (strip.piece == strip.stride) return file.read(strip.begin, out);
  if (strip.stride - strip.piece >= worthwhile_gap) {
    for (std::uint64_t i = 0; i < strip.rows; ++i) {
      file.read(strip.begin + i * strip.stride, out.subspan(i * piece, piece));
    }
    return;
  }
  const auto group = std::max<std::uint64_t>(1, buffer_bytes / strip.stride);
  std::vector<std::byte> buffer;
  for (std::uint64_t first = 0; first < strip.rows; first += group) {
    const auto count = std::min(group, strip.rows - first);
    // From the first piece to the end of the last one, not beyond: the file may end there.
    buffer.resize((count - 1) * strip.stride + piece);
    file.read(strip.begin + first * strip.stride, buffer);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::memcpy(out.data() + (first + i) * piece, buffer.data() + i * strip.stride, piece);
    }
  }
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& directory) : directory_(directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    throw InputError(fmt::format("{} is not a checkpoint directory", directory.string()));
  }
  has_index_ = fs::exists(directory / index_name, error);
  if (has_index_) {
    open_indexed();
  } else {
    open_single();
  }
}

void Checkpoint::open_single() {
  const auto found = safetensors_names(directory_);
  if (std::find(found.begin(), found.end(), single_name) == found.end()) {
    throw InputError(found.empty()
                         ? fmt::format("{} holds no {}; convert weights of other formats first",
                                       directory_.string(), single_name)
                         : fmt::format("{} holds {} but neither {} nor {}", directory_.string(),
                                       found.front(), single_name, index_name));
  }
  require_inside(directory_, single_name);
  files_.emplace_back(directory_ / single_name);
  place_tensors();
}

void Checkpoint::open_indexed() {
  const auto source = (directory_ / index_name).string();
  require_inside(directory_, index_name);
  index_text_ = read_text(source);
  const auto map = parse_weight_map(index_text_, source);
  std::set<std::string> names;
  for (const auto& [tensor, name] : map) names.insert(name);
  refuse_case_clashes({names.begin(), names.end()}, source + ": the file names");
  for (const auto& name : safetensors_names(directory_)) {
    if (!names.contains(name)) stale_files_.push_back(name);
  }
  // transformers would load this file and never look at the index.
  if (std::find(stale_files_.begin(), stale_files_.end(), single_name) != stale_files_.end()) {
    throw InputError(fmt::format("{} holds {} beside an index that does not name it; remove one",
                                 directory_.string(), single_name));
  }
  for (const auto& name : names) {
    require_inside(directory_, name);
    files_.emplace_back(directory_ / name);
  }
  place_tensors();
  for (const auto& [tensor, name] : map) {
    const auto found = where_.find(tensor);
    if (found == where_.end()) {
      throw InputError(fmt::format("{}: tensor {} is mapped to {}, but is not there", source,
                                   in_quotes(tensor), name));
    }
    const auto holder = files_[found->second.file].path().filename().string();
    if (holder != name) {
      throw InputError(fmt::format("{}: tensor {} is mapped to {}, but is in {}", source,
                                   in_quotes(tensor), name, holder));
    }
  }
  for (const auto& [tensor, where] : where_) {
    if (!map.contains(tensor)) {
      throw InputError(fmt::format("{}: tensor {} of {} is not mapped", source, in_quotes(tensor),
                                   files_[where.file].path().filename().string()));
    }
  }
  if (!stale_files_.empty()) {
    dist::log::warn(fmt::format("{} holds files that its index does not name, left alone: {}",
                                directory_.string(), fmt::join(stale_files_, ", ")));
  }
}

void Checkpoint::place_tensors() {
  for (std::size_t file = 0; file < files_.size(); ++file) {
    const auto& tensors = files_[file].tensors();
    for (std::size_t tensor = 0; tensor < tensors.size(); ++tensor) {
      const auto& name = tensors[tensor].name;
      const auto [other, added] = where_.emplace(name, Place{file, tensor});
      if (!added) {
        throw InputError(fmt::format("tensor {} is both in {} and in {}", in_quotes(name),
                                     files_[other->second.file].path().string(),
                                     files_[file].path().string()));
      }
    }
  }
  if (where_.empty()) {
    throw InputError(fmt::format("{} holds no tensors", directory_.string()));
  }
  refuse_case_clashes(names(), directory_.string() + ": the tensor names");
}

std::vector<fs::path> Checkpoint::side_files() const {
  std::vector<fs::path> result;
  for (const auto& name : list_directory(directory_)) {
    if (!is_side_file(name)) continue;
    const auto path = directory_ / name;
    std::error_code error;
    if (fs::is_symlink(path, error)) require_inside(directory_, name);
    if (fs::is_regular_file(path, error)) result.push_back(path);
  }
  return result;
}

const Checkpoint::Place& Checkpoint::place(const std::string& tensor) const {
  const auto found = where_.find(tensor);
  if (found == where_.end()) {
    throw InputError(fmt::format("no tensor {} in {}", tensor, directory_.string()));
  }
  return found->second;
}

const TensorInfo& Checkpoint::info(const std::string& tensor) const {
  const auto& where = place(tensor);
  return files_[where.file].tensors()[where.tensor];
}

const SafetensorsFile& Checkpoint::file_of(const std::string& tensor) const {
  return files_[place(tensor).file];
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(where_.size());
  for (const auto& [name, where] : where_) result.push_back(name);
  return result;
}

std::vector<std::byte> Checkpoint::read_block(const std::string& tensor, dist::Range rows,
                                              dist::Range columns) const {
  const auto& tensor_info = info(tensor);
  const auto& file = file_of(tensor);
  const auto& shape = tensor_info.shape;
  const auto inside = [](dist::Range range, std::int64_t size) {
    return 0 <= range.begin && range.begin <= range.end && range.end <= size;
  };
  const int bits = dtype_bits(tensor_info.dtype);
  if (shape.size() != 2 || bits % 8 != 0 || !inside(rows, shape[0]) || !inside(columns, shape[1])) {
    throw InputError(fmt::format(
        "tensor {} of {} has type {} and shape {}; rows {} to {} and columns {} to {} of a matrix "
        "of whole bytes are needed",
        tensor, file.path().string(), dtype_name(tensor_info.dtype), shape_text(tensor_info),
        rows.begin, rows.end, columns.begin, columns.end));
  }
  const auto bytes = static_cast<std::uint64_t>(bits) / 8;
  const auto stride = to_unsigned(shape[1]) * bytes;
  const Strip strip{
      tensor_info.begin + to_unsigned(rows.begin) * stride + to_unsigned(columns.begin) * bytes,
      to_unsigned(rows.size()), to_unsigned(columns.size()) * bytes, stride};
  std::vector<std::byte> block(static_cast<std::size_t>(strip.rows * strip.piece));
  if (!block.empty()) read_strip(file, strip, block);
  file.expect_unchanged();
  return block;
}

std::vector<std::byte> Checkpoint::read(const std::string& tensor) const {
  const auto& tensor_info = info(tensor);
  const auto& file = file_of(tensor);
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor_info.bytes()));
  file.read(tensor_info.begin, bytes);
  file.expect_unchanged();
  return bytes;
}

std::string Checkpoint::fingerprint() const {
  std::string text = index_text_;
  for (const auto& file : files_) {
    const auto& header = file.raw_header();
    text += fmt::format("\n{} {} {}\n", file.path().filename().string(), file.file_size(),
                        file.modified());
    text.append(reinterpret_cast<const char*>(header.data()), header.size());
  }
  const auto config = directory_ / "config.json";
  if (fs::exists(config)) text += read_text(config);
  return xxh3_128(text);
}

}  // namespace mrp::io
