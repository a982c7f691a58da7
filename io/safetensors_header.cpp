#include "io/safetensors_header.hpp"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "dist/error.hpp"
#include "io/json.hpp"

namespace mrp::io {

using dist::InputError;
using nlohmann::json;

namespace {

// Bounds that the format does not set. The largest public checkpoints have some 10^5 tensors over
// all their files, names of about 100 bytes and at most 5 dimensions.
constexpr std::size_t max_tensors = 200'000;
constexpr std::size_t max_name = 1024;
constexpr std::size_t max_dimensions = 64;

/// One state per place of the header where something may stand; whatever does not belong there
/// throws.
class HeaderEvents : public json::json_sax_t {
 public:
  explicit HeaderEvents(const std::string& source) : source_(source) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { return refuse_value("null"); }
  bool boolean(bool) override { return refuse_value("true or false"); }
  bool number_integer(number_integer_t) override { return refuse_value("a negative integer"); }
  bool number_float(number_float_t, const string_t&) override {
    return refuse_value("a number that is no 64-bit integer");
  }
  bool binary(binary_t&) override { return refuse_value("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      add_dimension(value);
    } else if (place_ == Place::offsets) {
      if (offsets_.size() == 2) fail("data_offsets has more than two numbers");
      offsets_.push_back(value);
    } else {
      refuse_value("an integer");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(std::move(key_), std::move(value));
    } else if (place_ == Place::tensor && key_ == "dtype") {
      set_dtype(value);
    } else {
      refuse_value("a string");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::root;
    } else if (place_ == Place::root) {
      if (key_ == "__metadata__") {
        place_ = Place::metadata;
      } else {
        place_ = Place::tensor;
        tensor_ = {};
        tensor_.name = std::move(key_);
        offsets_.clear();
        fields_ = {};
      }
    } else {
      refuse_value("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (value.size() > max_name) {
      fail(fmt::format("the name {} is longer than {} bytes", in_quotes(value), max_name));
    }
    if (place_ == Place::root) {
      open_entry(value);
    } else if (place_ == Place::metadata) {
      if (header_.metadata.contains(value)) fail_twice(value);
    } else {
      open_field(value);
    }
    key_ = std::move(value);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      close_tensor();
      place_ = Place::root;
    } else if (place_ == Place::metadata) {
      place_ = Place::root;
    } else {
      place_ = Place::outside;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::tensor && key_ == "shape") {
      place_ = Place::shape;
    } else if (place_ == Place::tensor && key_ == "data_offsets") {
      place_ = Place::offsets;
    } else {
      refuse_value("a list");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_.size() != 2) {
      fail("data_offsets has fewer than two numbers");
    }
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    throw InputError(fmt::format("{}: not JSON at byte {}", source_, position));
  }

 private:
  enum class Place { outside, root, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> field_names = {"dtype", "shape", "data_offsets"};

  [[noreturn]] void fail(const std::string& rule) const {
    const bool inside =
        place_ == Place::tensor || place_ == Place::shape || place_ == Place::offsets;
    if (inside) {
      throw InputError(fmt::format("{}: tensor {}: {}", source_, in_quotes(tensor_.name), rule));
    }
    throw InputError(fmt::format("{}: {}", source_, rule));
  }

  [[noreturn]] void fail_twice(const std::string& name) const {
    fail(fmt::format("the key {} stands twice", in_quotes(name)));
  }

  /// Something that may not stand here; says what may.
  bool refuse_value(std::string_view found) const {
    switch (place_) {
      case Place::outside:
        fail(fmt::format("the header is {}; allowed: an object", found));
      case Place::root:
        fail(fmt::format("{} is {}; allowed: an object", in_quotes(key_), found));
      case Place::metadata:
        fail(fmt::format("__metadata__ holds {} under {}; allowed: strings", found,
                         in_quotes(key_)));
      case Place::shape:
        fail(fmt::format("shape holds {}; allowed: non-negative integers", found));
      case Place::offsets:
        fail(fmt::format("data_offsets holds {}; allowed: two non-negative integers", found));
      case Place::tensor:
        break;
    }
    fail(fmt::format("{} is {}; allowed: {}", key_, found,
                     key_ == "dtype" ? "a string" : "a list of non-negative integers"));
  }

  void open_entry(const std::string& name) {
    if (has_control_characters(name)) {
      fail(fmt::format("the tensor name {} holds control characters", in_quotes(name)));
    }
    if (!names_.insert(name).second) fail_twice(name);
    if (names_.size() > max_tensors) fail(fmt::format("more than {} tensors", max_tensors));
  }

  void open_field(const std::string& name) {
    for (std::size_t i = 0; i < field_names.size(); ++i) {
      if (field_names[i] != name) continue;
      if (std::exchange(fields_[i], true)) fail_twice(name);
      return;
    }
    fail(fmt::format("unknown field {}", in_quotes(name)));
  }

  void add_dimension(std::uint64_t value) {
    if (!std::in_range<std::int64_t>(value)) {
      fail(fmt::format("the dimension {} does not fit 63 bits", value));
    }
    if (tensor_.shape.size() == max_dimensions) {
      fail(fmt::format("more than {} dimensions", max_dimensions));
    }
    tensor_.shape.push_back(static_cast<std::int64_t>(value));
  }

  void set_dtype(const std::string& name) {
    try {
      tensor_.dtype = parse_dtype(name);
    } catch (const InputError&) {
      fail(fmt::format("unknown dtype {}", in_quotes(name)));
    }
  }

  void close_tensor() {
    for (std::size_t i = 0; i < field_names.size(); ++i) {
      if (!fields_[i]) fail(fmt::format("{} is missing", field_names[i]));
    }
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    if (tensor_.begin > tensor_.end) {
      fail(fmt::format("data_offsets run backwards, from {} to {}", tensor_.begin, tensor_.end));
    }
    const auto what = fmt::format("{}: tensor {}", source_, in_quotes(tensor_.name));
    const auto expected = tensor_bytes(tensor_.dtype, tensor_.shape, what);
    if (tensor_.bytes() != expected) {
      fail(fmt::format("data_offsets span {} bytes, but dtype and shape need {}", tensor_.bytes(),
                       expected));
    }
    header_.tensors.push_back(std::move(tensor_));
  }

  const std::string& source_;
  SafetensorsHeader header_;
  std::set<std::string> names_;
  Place place_ = Place::outside;
  std::string key_;
  TensorInfo tensor_;
  std::vector<std::uint64_t> offsets_;
  std::array<bool, 3> fields_{};
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& source) {
  require_text(text, source);
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{') {
    throw InputError(fmt::format("{}: does not start with {{", source));
  }
  HeaderEvents events(source);
  json::sax_parse(text, &events);
  return events.take();
}

std::uint64_t tensor_bytes(DType dtype, const std::vector<std::int64_t>& shape,
                           const std::string& what) {
  std::uint64_t elements = 1;
  for (const auto dimension : shape) {
    if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(dimension), &elements) ||
        !std::in_range<std::int64_t>(elements)) {
      throw InputError(fmt::format("{}: the number of elements overflows", what));
    }
  }
  std::uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(dtype_bits(dtype)), &bits)) {
    throw InputError(fmt::format("{}: the number of bits overflows", what));
  }
  if (bits % 8 != 0) {
    throw InputError(fmt::format("{}: {} elements of {} do not fill whole bytes", what, elements,
                                 dtype_name(dtype)));
  }
  return bits / 8;
}

}  // namespace mrp::io
