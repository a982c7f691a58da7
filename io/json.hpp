// JSON from files that nobody vouches for: strict parsing, and typed access with errors that name
// the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mrp::io {

/// `text` in quotes, safe to print: escapes, at most 80 bytes of it.
std::string in_quotes(std::string_view text);

/// True for ASCII and C1 control characters, which could garble a terminal or a file name.
bool has_control_characters(std::string_view text);

/// @throws InputError naming `source` unless `text` is UTF-8 without NUL bytes.
void require_text(std::string_view text, const std::string& source);

/// Stricter than nlohmann's parser: no NUL bytes, no byte-order mark, no key twice in one object,
/// at most 64 levels.
/// @throws InputError naming `source` and the rule.
nlohmann::json parse_json(std::string_view text, const std::string& source);

/// One object of a parsed file. A view: the parsed value must outlive it. Every getter throws
/// InputError "FILE: PATH.key is VALUE; allowed: WHAT" or "FILE: PATH.key is missing". Null counts
/// as missing.
class JsonObject {
 public:
  /// @throws InputError unless `value` is an object.
  JsonObject(const nlohmann::json& value, std::string source, std::string path = {});

  bool has(const std::string& key) const { return find(key) != nullptr; }
  /// Null if there is no such key, or its value is null.
  const nlohmann::json* find(const std::string& key) const;

  std::int64_t integer(const std::string& key, std::int64_t least,
                       std::int64_t most = std::numeric_limits<std::int64_t>::max()) const;
  double number(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;
  JsonObject object(const std::string& key) const;
  /// A list of objects; errors name them "key[0]", "key[1]", ...
  std::vector<JsonObject> objects(const std::string& key) const;

  std::vector<std::string> keys() const;
  /// @throws InputError for a key that is not in `known`.
  void allow_only(std::initializer_list<std::string_view> known) const;
  [[noreturn]] void refuse(const std::string& key, std::string_view allowed) const;

 private:
  const nlohmann::json& at(const std::string& key) const;
  std::string name(const std::string& key) const;

  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
};

}  // namespace mrp::io
