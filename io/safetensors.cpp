#include "io/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "dist/error.hpp"
#include "io/json.hpp"
#include "io/safetensors_header.hpp"

namespace mrp::io {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian and its bytes are used as they are");

using dist::InputError;

namespace {

constexpr std::uint64_t prefix = 8;
constexpr std::uint64_t max_header = 100'000'000;

/// The 8-byte length and the header.
std::vector<std::byte> read_header(const File& file) {
  const auto& path = file.path().string();
  if (file.size() < prefix) {
    throw InputError(
        fmt::format("{}: {} bytes are too few for a safetensors file", path, file.size()));
  }
  std::uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  // Before anything is allocated.
  if (length > max_header) {
    throw InputError(fmt::format("{}: the header claims {} bytes; at most {} are allowed", path,
                                 length, max_header));
  }
  if (length > file.size() - prefix) {
    throw InputError(
        fmt::format("{}: the header claims {} bytes, beyond the end of the file", path, length));
  }
  std::vector<std::byte> header(static_cast<std::size_t>(prefix + length));
  file.read(0, header);
  if (std::memcmp(header.data(), &length, sizeof(length)) != 0) {
    throw InputError(fmt::format("{}: changed while it was being read", path));
  }
  return header;
}

/// The tensors must fill the data without gap or overlap: otherwise other content hides in a file,
/// or a few bytes pose as many tensors.
void check_tiling(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes,
                  const std::string& path) {
  std::uint64_t next = 0;
  for (const auto& tensor : tensors) {
    if (tensor.begin != next) {
      throw InputError(fmt::format("{}: tensor {} starts at data byte {}, {} the previous end {}",
                                   path, in_quotes(tensor.name), tensor.begin,
                                   tensor.begin < next ? "overlapping" : "leaving a hole after",
                                   next));
    }
    next = tensor.end;
  }
  if (next > data_bytes) {
    throw InputError(fmt::format("{}: truncated: the tensors need {} data bytes, the file has {}",
                                 path, next, data_bytes));
  }
  if (next < data_bytes) {
    throw InputError(
        fmt::format("{}: {} trailing bytes after the last tensor", path, data_bytes - next));
  }
}

std::string header_text(const std::vector<TensorData>& tensors) {
  std::string text = R"({"__metadata__":{"format":"pt"})";
  std::uint64_t begin = 0;
  for (const auto& tensor : tensors) {
    const auto end = begin + tensor.data.size();
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        nlohmann::json(tensor.name).dump(), dtype_name(tensor.dtype),
                        fmt::join(tensor.shape, ","), begin, end);
    begin = end;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const auto dimension : shape) count *= dimension;
  return count;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), raw_header_(read_header(file_)) {
  const auto* text = reinterpret_cast<const char*>(raw_header_.data()) + prefix;
  auto header = parse_safetensors_header({text, raw_header_.size() - prefix}, path.string());
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
  // Empty tensors share their begin with the next one and must come before it.
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_tiling(tensors_, file_.size() - raw_header_.size(), path.string());
  for (auto& tensor : tensors_) {
    tensor.begin += raw_header_.size();
    tensor.end += raw_header_.size();
  }
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorData> tensors) {
  for (const auto& tensor : tensors) {
    MRP_EXPECT(tensor.data.size() == tensor_bytes(tensor.dtype, tensor.shape, tensor.name),
               tensor.name);
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorData& a, const TensorData& b) {
    return std::tie(b.dtype, a.name) < std::tie(a.dtype, b.name);
  });
  const auto text = header_text(tensors);
  const std::uint64_t length = text.size();
  OutputFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(text)));
  for (const auto& tensor : tensors) file.write(tensor.data);
  file.publish();
}

}  // namespace mrp::io
