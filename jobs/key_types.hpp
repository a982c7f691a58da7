// Kinds of values that a key of the job file can take: each function makes the Key of one of them.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "jobs/config_keys.hpp"

namespace mrp::jobs {

/// The whole text as a number; false if it is none.
bool read_number(const std::string& text, auto& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

template <class Value>
struct OptionalField : std::false_type {
  using Number = Value;
};
template <class Value>
struct OptionalField<std::optional<Value>> : std::true_type {
  using Number = Value;
};

// A field is given by a generic lambda `[](auto& c) -> auto& { return c.some.member; }`.

/// A number that `accept` takes; `allowed` says the same in words. Where the field is an optional,
/// "auto" leaves it empty.
template <class Value, class Field, class Accept>
Key number(std::string path, Field field, std::string allowed, Accept accept, std::string help) {
  using Kind = OptionalField<std::remove_reference_t<decltype(field(std::declval<JobConfig&>()))>>;
  Key key{std::move(path), std::move(allowed), std::move(help)};
  if (Kind::value) {
    key.allowed = "auto or " + key.allowed;
    key.choices = {"auto"};
  }
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsScalar()) return false;
    if constexpr (Kind::value) {
      if (node.Scalar() == "auto") {
        field(config).reset();
        return true;
      }
    }
    Value value = 0;
    if (!read_number(node.Scalar(), value) || !accept(value)) return false;
    field(config) = static_cast<typename Kind::Number>(value);
    return true;
  };
  key.show = [=](const JobConfig& config) {
    if constexpr (Kind::value) {
      if (!field(config)) return nlohmann::json("auto");
      return nlohmann::json(*field(config));
    } else {
      return nlohmann::json(field(config));
    }
  };
  return key;
}

template <class Field>
Key integer(std::string path, Field field, std::int64_t low, std::int64_t high, std::string help) {
  return number<std::int64_t>(
      std::move(path), field, fmt::format("an integer from {} to {}", low, high),
      [=](std::int64_t value) { return value >= low && value <= high; }, std::move(help));
}

template <class Field>
Key real(std::string path, Field field, std::string allowed, bool (*accept)(double),
         std::string help) {
  return number<double>(
      std::move(path), field, std::move(allowed),
      [=](double value) { return std::isfinite(value) && accept(value); }, std::move(help));
}

/// One of some words, each standing for a value.
template <class Value, class Field>
Key choice(std::string path, Field field, std::vector<std::pair<std::string, Value>> values,
           std::string help) {
  Key key{std::move(path), "", std::move(help)};
  for (const auto& [word, value] : values) key.choices.push_back(word);
  key.allowed = fmt::format("one of {}", fmt::join(key.choices, ", "));
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    for (const auto& [word, value] : values) {
      if (!node.IsScalar() || node.Scalar() != word) continue;
      field(config) = value;
      return true;
    }
    return false;
  };
  key.show = [=](const JobConfig& config) {
    const auto at = std::find_if(values.begin(), values.end(),
                                 [&](const auto& entry) { return entry.second == field(config); });
    return nlohmann::json(at->first);
  };
  return key;
}

template <class Field>
Key flag(std::string path, Field field, std::string help) {
  return choice<bool>(std::move(path), field, {{"true", true}, {"false", false}}, std::move(help));
}

/// A list of different words.
template <class Field>
Key words(std::string path, Field field, std::vector<std::string> allowed, std::string help) {
  Key key{std::move(path), fmt::format("a list of {}", fmt::join(allowed, ", ")), std::move(help)};
  key.choices = allowed;
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsSequence() || node.size() == 0) return false;
    std::vector<std::string> found;
    for (const auto& element : node) {
      if (!element.IsScalar() ||
          std::count(allowed.begin(), allowed.end(), element.Scalar()) == 0 ||
          std::count(found.begin(), found.end(), element.Scalar()) != 0) {
        return false;
      }
      found.push_back(element.Scalar());
    }
    field(config) = found;
    return true;
  };
  key.show = [=](const JobConfig& config) { return nlohmann::json(field(config)); };
  return key;
}

template <class Field>
Key path_of(std::string path, Field field, bool required, std::string help) {
  Key key{std::move(path), "a path", std::move(help), required};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsScalar() || node.Scalar().empty()) return false;
    field(config) = node.Scalar();
    return true;
  };
  key.show = [=](const JobConfig& config) { return nlohmann::json(field(config).string()); };
  return key;
}

/// A single word, whose meaning is checked when the whole job is known.
template <class Field>
Key word(std::string path, Field field, std::string allowed, std::string help) {
  Key key{std::move(path), std::move(allowed), std::move(help)};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsScalar() || node.Scalar().empty()) return false;
    field(config) = node.Scalar();
    return true;
  };
  key.show = [=](const JobConfig& config) { return nlohmann::json(field(config)); };
  return key;
}

/// Ascending, different, positive (or from 0 on) numbers.
template <class Value, class Field>
Key ascending(std::string path, Field field, Value low, std::string allowed, std::string help) {
  Key key{std::move(path), std::move(allowed), std::move(help)};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsSequence() || node.size() == 0) return false;
    std::vector<Value> found;
    for (const auto& element : node) {
      Value value{};
      if (!element.IsScalar() || !read_number(element.Scalar(), value) || !(value >= low) ||
          (!found.empty() && !(value > found.back()))) {
        return false;
      }
      found.push_back(value);
    }
    field(config) = found;
    return true;
  };
  key.show = [=](const JobConfig& config) { return nlohmann::json(field(config)); };
  return key;
}

}  // namespace mrp::jobs
