#include "jobs/config_keys.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "shard/capture.hpp"

namespace mrp::jobs {
namespace {

using nlohmann::json;

constexpr std::int64_t kMillion = 1'000'000;

bool read_number(const std::string& text, auto& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

/// A field is given by a generic lambda `[](auto& c) -> auto& { return c.some.member; }`.
template <class Field>
Key integer(std::string path, Field field, std::int64_t low, std::int64_t high, std::string help) {
  Key key{std::move(path), fmt::format("an integer from {} to {}", low, high), std::move(help)};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    std::int64_t value = 0;
    if (!node.IsScalar() || !read_number(node.Scalar(), value) || value < low || value > high) {
      return false;
    }
    field(config) = static_cast<std::remove_reference_t<decltype(field(config))>>(value);
    return true;
  };
  key.show = [=](const JobConfig& config) { return json(field(config)); };
  return key;
}

/// "auto" (an empty optional) or an integer.
template <class Field>
Key automatic_or_integer(std::string path, Field field, std::int64_t low, std::int64_t high,
                         std::string help) {
  Key key{std::move(path), fmt::format("auto or an integer from {} to {}", low, high),
          std::move(help)};
  key.choices = {"auto"};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    if (!node.IsScalar()) return false;
    std::int64_t value = 0;
    auto& member = field(config);
    if (node.Scalar() == "auto") {
      member.reset();
      return true;
    }
    if (!read_number(node.Scalar(), value) || value < low || value > high) return false;
    member = static_cast<typename std::remove_reference_t<decltype(member)>::value_type>(value);
    return true;
  };
  key.show = [=](const JobConfig& config) {
    return field(config) ? json(*field(config)) : json("auto");
  };
  return key;
}

/// `accept` decides, `allowed` says the same in words.
template <class Field>
Key real(std::string path, Field field, std::string allowed, bool (*accept)(double),
         std::string help) {
  Key key{std::move(path), std::move(allowed), std::move(help)};
  key.bind = [=](JobConfig& config, const std::string&, const YAML::Node& node) {
    double value = 0;
    if (!node.IsScalar() || !read_number(node.Scalar(), value) || !std::isfinite(value) ||
        !accept(value)) {
      return false;
    }
    field(config) = value;
    return true;
  };
  key.show = [=](const JobConfig& config) { return json(field(config)); };
  return key;
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
    return json(at->first);
  };
  return key;
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
  key.show = [=](const JobConfig& config) { return json(field(config)); };
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
  key.show = [=](const JobConfig& config) { return json(field(config).string()); };
  return key;
}

/// "3" or "2-5", added to `layers`.
bool add_layers(const YAML::Node& node, std::set<std::int64_t>& layers) {
  if (!node.IsScalar()) return false;
  const std::string& text = node.Scalar();
  const std::size_t dash = text.find('-');
  std::int64_t first = 0, last = 0;
  if (!read_number(text.substr(0, dash), first)) return false;
  last = first;
  if (dash != std::string::npos && !read_number(text.substr(dash + 1), last)) return false;
  if (first < 0 || last < first || last >= kMillion) return false;
  for (std::int64_t layer = first; layer <= last; ++layer) layers.insert(layer);
  return true;
}

Key layers_key() {
  Key key{"sites.layers", "all, a layer, a range such as 4-11, or a list of layers and ranges",
          "layers of the model, counted from 0"};
  key.choices = {"all"};
  key.bind = [](JobConfig& config, const std::string&, const YAML::Node& node) {
    config.sites.layers.reset();
    if (node.IsScalar() && node.Scalar() == "all") return true;
    std::set<std::int64_t> layers;
    if (node.IsSequence()) {
      for (const auto& element : node) {
        if (!add_layers(element, layers)) return false;
      }
    } else if (!add_layers(node, layers)) {
      return false;
    }
    if (layers.empty()) return false;
    config.sites.layers.emplace(layers.begin(), layers.end());
    return true;
  };
  key.show = [](const JobConfig& config) {
    return config.sites.layers ? json(*config.sites.layers) : json("all");
  };
  return key;
}

Key evaluate_key() {
  Key key{"data.evaluate.*", "a path (names: letters, digits and _, not forget or retain)",
          "further JSONL files that `evaluate` measures, by name"};
  key.standard = "none";
  key.bind = [](JobConfig& config, const std::string& name, const YAML::Node& node) {
    const auto plain = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    if (name.empty() || !std::all_of(name.begin(), name.end(), plain) || name[0] == '_' ||
        (name[0] >= '0' && name[0] <= '9') || name == "forget" || name == "retain" ||
        !node.IsScalar() || node.Scalar().empty()) {
      return false;
    }
    config.data.evaluate[name] = node.Scalar();
    return true;
  };
  key.show = [](const JobConfig& config) {
    json paths = json::object();
    for (const auto& [name, path] : config.data.evaluate) paths[name] = path.string();
    return paths;
  };
  return key;
}

#define MRP_FIELD(member) \
  [](auto& c) -> auto& {  \
    return c.member;      \
  }

std::vector<Key> data_keys() {
  return {path_of("data.forget", MRP_FIELD(data.forget), true, "JSONL records to be forgotten"),
          path_of("data.retain", MRP_FIELD(data.retain), true, "JSONL records to be kept"),
          evaluate_key(),
          choice<std::string>("data.template", MRP_FIELD(data.prompt_template),
                              {{"auto", "auto"}, {"plain", "plain"}},
                              "auto: the tokenizer's chat template if it has one"),
          integer("data.max_tokens", MRP_FIELD(data.max_tokens), 2, kMillion,
                  "longer records are dropped and counted, longer plain texts are cut"),
          real(
              "data.overlap_limit", MRP_FIELD(data.overlap_limit), "a number from 0 to 1",
              [](double x) { return x >= 0 && x <= 1; },
              "accepted share of forget records that are also retain records")};
}

std::vector<Key> subspace_keys() {
  using enum solver::Rule;
  using solver::ProjectorKind, solver::Route, solver::Rule;
  return {
      choice<Rule>("subspace.rule", MRP_FIELD(subspace.rule),
                   {{"gevp", gevp},
                    {"cpca", cpca},
                    {"retain_complement", retain_complement},
                    {"forget_pca", forget_pca},
                    {"random", random}},
                   "how the removed directions are chosen"),
      automatic_or_integer("subspace.dimension", MRP_FIELD(subspace.dimension), 1, kMillion,
                           "directions removed at each site; auto: those above the null edge"),
      integer("subspace.max_dimension", MRP_FIELD(subspace.max_dimension), 1, kMillion,
              "upper limit of an automatic dimension"),
      real(
          "subspace.ridge", MRP_FIELD(subspace.ridge), "a number above 0",
          [](double x) { return x > 0; }, "regularisation, relative to the mean retain variance"),
      real(
          "subspace.alpha", MRP_FIELD(subspace.alpha), "a number, 0 or above",
          [](double x) { return x >= 0; }, "cpca: weight of the retain covariance"),
      real(
          "subspace.retain_energy", MRP_FIELD(subspace.retain_energy), "a number between 0 and 1",
          [](double x) { return x > 0 && x < 1; },
          "retain_complement: share of the retain variance that is protected"),
      choice<ProjectorKind>(
          "subspace.projector", MRP_FIELD(subspace.projector),
          {{"oblique", ProjectorKind::oblique}, {"orthogonal", ProjectorKind::orthogonal}},
          "oblique changes retain states least"),
      choice<Route>("subspace.route", MRP_FIELD(subspace.route),
                    {{"auto", Route::automatic},
                     {"feature", Route::feature_space},
                     {"sample", Route::sample_space}},
                    "form width × width or tokens × tokens matrices; auto: the cheaper")};
}

std::vector<Key> make_keys() {
  std::vector<Key> all;
  const auto add = [&](std::vector<Key> more) {
    std::move(more.begin(), more.end(), std::back_inserter(all));
  };
  add({path_of("model", MRP_FIELD(model), true, "checkpoint in the Hugging Face layout"),
       path_of("output", MRP_FIELD(output), true, "directory of the unlearned checkpoint"),
       path_of("work", MRP_FIELD(work), false, "directory of everything in between")});
  all.back().standard = "<output>.work";
  add(data_keys());
  add({words("sites.modules", MRP_FIELD(sites.modules),
             {"qkv.input", "o_proj.input", "gate_up.input", "down_proj.input", "o_proj.output",
              "down_proj.output", "stream.output"},
             "where in a layer"),
       layers_key(),
       choice<shard::Positions>(
           "sites.positions", MRP_FIELD(sites.positions),
           {{"target", shard::Positions::target}, {"all", shard::Positions::all}},
           "token positions whose states count: those that predict the answer, or all")});
  add(subspace_keys());
  add({integer("refine.samples", MRP_FIELD(refine.samples), 0, kMillion,
               "texts drawn from the base model, which stand for what no set lists"),
       integer("refine.sample_tokens", MRP_FIELD(refine.sample_tokens), 1, kMillion,
               "upper limit of the tokens of such a text")});
  add({choice<shard::Rounding>("merge.rounding", MRP_FIELD(merge.rounding),
                               {{"error_feedback", shard::Rounding::error_feedback},
                                {"nearest", shard::Rounding::nearest}},
                               "how folded weights return to their stored type"),
       automatic_or_integer("parallel.tensor", MRP_FIELD(parallel.tensor), 1, kMillion,
                            "ranks that share one copy of the model; the rest is data parallel"),
       integer("parallel.batch_tokens", MRP_FIELD(parallel.batch_tokens), 1, 100 * kMillion,
               "tokens of a batch, padding included"),
       choice<Device>("device", MRP_FIELD(device),
                      {{"auto", Device::automatic}, {"cpu", Device::cpu}, {"cuda", Device::cuda}},
                      "auto: CUDA where a GPU is visible"),
       choice<Compute>(
           "compute", MRP_FIELD(compute),
           {{"auto", Compute::automatic}, {"bf16", Compute::bf16}, {"fp32", Compute::fp32}},
           "type of the products; auto: bf16 where the processor has it"),
       integer("seed", MRP_FIELD(seed), 0, std::int64_t{1} << 62, "of everything random")});
  return all;
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> all = make_keys();
  return all;
}

}  // namespace mrp::jobs
