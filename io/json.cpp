#include "io/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "dist/error.hpp"

namespace mrp::io {

using dist::InputError;
using nlohmann::json;

namespace {

constexpr int max_depth = 64;

/// Bytes of the well-formed UTF-8 sequence at the start of `text`; 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned>(static_cast<unsigned char>(text[i])) : 0u;
  };
  const auto within = [&](std::size_t i, unsigned low, unsigned high) {
    return byte(i) >= low && byte(i) <= high;
  };
  const auto tail = [&](std::size_t i) { return within(i, 0x80, 0xbf); };
  if (byte(0) < 0x80) return 1;
  if (within(0, 0xc2, 0xdf)) return tail(1) ? 2 : 0;
  if (within(0, 0xe0, 0xef)) {
    // No overlong forms, no surrogates.
    const bool second = within(1, byte(0) == 0xe0 ? 0xa0 : 0x80, byte(0) == 0xed ? 0x9f : 0xbf);
    return second && tail(2) ? 3 : 0;
  }
  if (within(0, 0xf0, 0xf4)) {
    const bool second = within(1, byte(0) == 0xf0 ? 0x90 : 0x80, byte(0) == 0xf4 ? 0x8f : 0xbf);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

/// Tracks the keys of the open objects, to find what the parser would silently overwrite.
class DuplicateCheck {
 public:
  explicit DuplicateCheck(const std::string& source) : source_(source) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= max_depth) {
        throw InputError(fmt::format("{}: nested deeper than {} levels", source_, max_depth));
      }
      open_.emplace_back();
    } else if (event == Event::object_end || event == Event::array_end) {
      open_.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second) {
        throw InputError(fmt::format("{}: the key {} stands twice", source_, in_quotes(key)));
      }
    }
    return true;
  }

 private:
  const std::string& source_;
  std::vector<std::set<std::string>> open_;
};

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 80;
  const auto part = std::string(text.substr(0, longest));
  auto result = json(part).dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > longest) result += "...";
  return result;
}

bool has_control_characters(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == 0x7f) return true;
    // U+0080 to U+009F in UTF-8.
    if (byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      return true;
    }
  }
  return false;
}

void require_text(std::string_view text, const std::string& source) {
  // The parser would take a NUL byte for the end of the text and ignore what follows.
  if (const auto at = text.find('\0'); at != std::string_view::npos) {
    throw InputError(fmt::format("{}: NUL byte at byte {}", source, at));
  }
  for (std::size_t i = 0; i < text.size();) {
    const auto length = utf8_length(text.substr(i, 4));
    if (length == 0) throw InputError(fmt::format("{}: not UTF-8 at byte {}", source, i));
    i += length;
  }
}

json parse_json(std::string_view text, const std::string& source) {
  require_text(text, source);
  if (text.starts_with("\xef\xbb\xbf")) {
    throw InputError(fmt::format("{}: starts with a byte-order mark; save it without", source));
  }
  try {
    return json::parse(text, DuplicateCheck(source));
  } catch (const json::parse_error& error) {
    throw InputError(fmt::format("{}: not JSON at byte {}", source, error.byte));
  } catch (const json::out_of_range&) {
    throw InputError(fmt::format("{}: holds a number that is too large", source));
  }
}

JsonObject::JsonObject(const json& value, std::string source, std::string path)
    : value_(&value), source_(std::move(source)), path_(std::move(path)) {
  if (!value.is_object()) {
    throw InputError(fmt::format("{}: {} is {}; allowed: an object", source_,
                                 path_.empty() ? "the content" : path_, value.type_name()));
  }
}

std::string JsonObject::name(const std::string& key) const {
  const auto shown = has_control_characters(key) || key.size() > 80 ? in_quotes(key) : key;
  return path_.empty() ? shown : path_ + "." + shown;
}

const json* JsonObject::find(const std::string& key) const {
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

const json& JsonObject::at(const std::string& key) const {
  if (const auto* value = find(key)) return *value;
  throw InputError(fmt::format("{}: {} is missing", source_, name(key)));
}

void JsonObject::refuse(const std::string& key, std::string_view allowed) const {
  const auto& value = at(key);
  // Long values (lists, whole objects) would drown the message.
  auto shown = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (shown.size() > 80) shown = shown.substr(0, 80) + "...";
  throw InputError(fmt::format("{}: {} is {}; allowed: {}", source_, name(key), shown, allowed));
}

std::int64_t JsonObject::integer(const std::string& key, std::int64_t least,
                                 std::int64_t most) const {
  const auto& value = at(key);
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || std::in_range<std::int64_t>(value.get<std::uint64_t>()));
  if (!fits || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
    refuse(key, most == std::numeric_limits<std::int64_t>::max()
                    ? fmt::format("an integer of at least {}", least)
                    : fmt::format("an integer from {} to {}", least, most));
  }
  return value.get<std::int64_t>();
}

double JsonObject::number(const std::string& key) const {
  const auto& value = at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) refuse(key, "a finite number");
  return value.get<double>();
}

bool JsonObject::boolean(const std::string& key) const {
  if (!at(key).is_boolean()) refuse(key, "true or false");
  return at(key).get<bool>();
}

std::string JsonObject::text(const std::string& key) const {
  if (!at(key).is_string()) refuse(key, "a string");
  return at(key).get<std::string>();
}

std::vector<std::string> JsonObject::texts(const std::string& key) const {
  const auto& value = at(key);
  const auto is_text = [](const json& item) { return item.is_string(); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text)) {
    refuse(key, "a list of strings");
  }
  return value.get<std::vector<std::string>>();
}

JsonObject JsonObject::object(const std::string& key) const {
  return {at(key), source_, name(key)};
}

std::vector<JsonObject> JsonObject::objects(const std::string& key) const {
  const auto& list = at(key);
  if (!list.is_array()) refuse(key, "a list of objects");
  std::vector<JsonObject> result;
  for (std::size_t i = 0; i < list.size(); ++i) {
    result.emplace_back(list[i], source_, fmt::format("{}[{}]", name(key), i));
  }
  return result;
}

std::vector<std::string> JsonObject::keys() const {
  std::vector<std::string> result;
  for (const auto& [key, value] : value_->items()) result.push_back(key);
  return result;
}

void JsonObject::allow_only(std::initializer_list<std::string_view> known) const {
  for (const auto& key : keys()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw InputError(fmt::format("{}: {} is not known; allowed: {}", source_, name(key),
                                   fmt::join(known, ", ")));
    }
  }
}

}  // namespace mrp::io
