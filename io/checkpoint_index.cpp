#include "io/checkpoint_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "dist/error.hpp"
#include "io/json.hpp"

namespace mrp::io {

using dist::InputError;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view extension = ".safetensors";

std::string lower_case(std::string text) {
  for (auto& letter : text) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return text;
}

/// Whoever wrote the index chose the names: one that leads elsewhere would have us read, and
/// publish, other files.
void check_file_name(const std::string& name, const std::string& tensor,
                     const std::string& source) {
  const auto fail = [&](std::string_view rule) {
    throw InputError(fmt::format("{}: tensor {} is mapped to {}, which {}", source,
                                 in_quotes(tensor), in_quotes(name), rule));
  };
  if (name.find('\0') != std::string::npos) fail("holds a NUL byte");
  if (has_control_characters(name)) fail("holds control characters");
  if (name.find('\\') != std::string::npos) fail("holds a backslash");
  if (name.starts_with('/')) fail("is an absolute path");
  const fs::path path(name);
  if (std::find(path.begin(), path.end(), "..") != path.end()) fail("leaves the directory by ..");
  if (path.has_parent_path()) fail("lies in a sub-directory; shards must stand beside the index");
  if (!name.ends_with(extension) || name.size() == extension.size()) {
    fail("does not end in .safetensors");
  }
}

}  // namespace

std::map<std::string, std::string> parse_weight_map(std::string_view text,
                                                    const std::string& source) {
  const auto parsed = parse_json(text, source);
  const JsonObject index(parsed, source);
  if (index.has("metadata")) index.object("metadata");  // must be an object; its keys are free
  const auto map = index.object("weight_map");
  std::map<std::string, std::string> result;
  for (const auto& tensor : map.keys()) {
    auto name = map.text(tensor);
    check_file_name(name, tensor, source);
    result.emplace(tensor, std::move(name));
  }
  if (result.empty()) throw InputError(fmt::format("{}: weight_map is empty", source));
  return result;
}

void refuse_case_clashes(const std::vector<std::string>& names, const std::string& what) {
  std::map<std::string, const std::string*> seen;
  for (const auto& name : names) {
    const auto [other, added] = seen.emplace(lower_case(name), &name);
    if (!added && *other->second != name) {
      throw InputError(fmt::format("{} {} and {} differ only by upper and lower case", what,
                                   in_quotes(*other->second), in_quotes(name)));
    }
  }
}

void require_inside(const fs::path& directory, const std::string& name) {
  const auto path = directory / name;
  std::error_code error;
  const auto target = fs::canonical(path, error);
  if (error) throw InputError(fmt::format("cannot open {}: {}", path.string(), error.message()));
  if (target.parent_path() != fs::canonical(directory)) {
    throw InputError(fmt::format(
        "{} is a link that leaves the directory, to {}; copy the checkpoint with its links "
        "resolved (cp -rL)",
        path.string(), target.string()));
  }
}

std::vector<std::string> list_directory(const fs::path& directory) {
  std::vector<std::string> names;
  try {
    for (const auto& entry : fs::directory_iterator(directory)) {
      names.push_back(entry.path().filename().string());
    }
  } catch (const fs::filesystem_error& error) {
    throw InputError(fmt::format("cannot list {}: {}", directory.string(), error.code().message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> safetensors_names(const fs::path& directory) {
  auto names = list_directory(directory);
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(extension); });
  return names;
}

bool is_side_file(std::string_view name) {
  constexpr std::array<std::string_view, 13> others = {extension,    ".safetensors.index.json",
                                                       ".bin",       ".bin.index.json",
                                                       ".pt",        ".pth",
                                                       ".ckpt",      ".h5",
                                                       ".msgpack",   ".onnx",
                                                       ".onnx_data", ".gguf",
                                                       ".partial"};
  const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
  return !name.starts_with('.') && std::none_of(others.begin(), others.end(), ends);
}

}  // namespace mrp::io
