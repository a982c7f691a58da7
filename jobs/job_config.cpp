#include "jobs/job_config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "dist/error.hpp"
#include "jobs/config_keys.hpp"
#include "jobs/continuation.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Fewest insertions, deletions and replacements that turn `a` into `b`.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

/// `; did you mean "..."?` for the nearest candidate, or nothing.
std::string suggestion(const std::string& word, const std::vector<std::string>& candidates) {
  const auto nearest =
      std::min_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
        return edit_distance(word, a) < edit_distance(word, b);
      });
  if (nearest == candidates.end() || *nearest == word) return "";
  const std::size_t limit = std::max<std::size_t>(1, nearest->size() / 3);
  if (edit_distance(word, *nearest) > limit) return "";
  return fmt::format("; did you mean \"{}\"?", *nearest);
}

std::string describe(const YAML::Node& node) {
  if (node.IsScalar()) return fmt::format("\"{}\"", node.Scalar());
  if (node.IsSequence()) return "a list";
  return node.IsMap() ? "a section" : "nothing";
}

/// First word of a value that is not among the choices, for the suggestion.
std::string odd_word(const YAML::Node& node, const std::vector<std::string>& choices) {
  if (node.IsScalar()) return node.Scalar();
  if (!node.IsSequence()) return "";
  for (const auto& element : node) {
    if (element.IsScalar() && std::count(choices.begin(), choices.end(), element.Scalar()) == 0) {
      return element.Scalar();
    }
  }
  return "";
}

/// Names that may stand below a section ("" is the top level), in order and once each.
std::vector<std::string> names_below(const std::string& section) {
  std::vector<std::string> names;
  const std::string prefix = section.empty() ? "" : section + ".";
  for (const Key& key : keys()) {
    if (!key.path.starts_with(prefix)) continue;
    const std::string rest = key.path.substr(prefix.size());
    const std::string name = rest.substr(0, rest.find('.'));
    if (std::count(names.begin(), names.end(), name) == 0) names.push_back(name);
  }
  return names;
}

/// Takes values from YAML into a configuration, one source (the file or an override) after the
/// other.
class Binder {
 public:
  Binder(std::string file, JobConfig defaults)
      : config(std::move(defaults)), file_(std::move(file)) {}

  void read_file(const std::string& text) {
    const YAML::Node root = load(text, file_);
    override_.clear();
    section(root, "", root.Mark());
    root_ = root.Mark();
  }

  void read_override(const std::string& assignment) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw dist::UsageError(
          fmt::format("--set {}: not of the form key.sub=value; write for example "
                      "--set subspace.dimension=16",
                      assignment));
    }
    const std::string path = assignment.substr(0, equals);
    override_ = "--set " + path;
    seen_.clear();
    entry(path, load(assignment.substr(equals + 1), override_), YAML::Mark());
  }

  /// Reports the first required key that no source gave, or two that exclude each other.
  void require_all() const {
    if (bound_.contains("model") && bound_.contains("continue")) {
      throw dist::UsageError(file_ +
                             ": model and continue are both given; continue names the "
                             "checkpoint already, remove model");
    }
    for (const Key& key : keys()) {
      if (!key.required || bound_.contains(key.path)) continue;
      if (key.path == "model" && bound_.contains("continue")) continue;
      const auto parent = sections_.find(key.path.substr(0, key.path.find('.')));
      throw dist::UsageError(fmt::format("{}: required key \"{}\" is missing; add it ({}: {})",
                                         place(parent == sections_.end() ? root_ : parent->second),
                                         key.path, key.allowed, key.help));
    }
  }

  JobConfig config;

 private:
  static YAML::Node load(const std::string& text, const std::string& source) {
    try {
      const auto documents = YAML::LoadAll(text);
      if (documents.size() > 1) throw dist::UsageError(source + ": more than one YAML document");
      return documents.empty() ? YAML::Node(YAML::NodeType::Null) : documents[0];
    } catch (const YAML::Exception& error) {
      throw dist::UsageError(fmt::format("{}:{}:{}: not valid YAML ({})", source,
                                         error.mark.line + 1, error.mark.column + 1, error.msg));
    }
  }

  std::string place(const YAML::Mark& mark) const {
    if (!override_.empty()) return override_;
    if (mark.is_null()) return file_ + ":1:1";  // an empty file
    return fmt::format("{}:{}:{}", file_, mark.line + 1, mark.column + 1);
  }

  /// Where a value stands, or its key when there is no value.
  static YAML::Mark mark_of(const YAML::Node& value, const YAML::Mark& key) {
    return value.IsNull() ? key : value.Mark();
  }

  void section(const YAML::Node& node, const std::string& path, const YAML::Mark& mark) {
    if (!node.IsMap()) {
      throw dist::UsageError(fmt::format(
          "{}: {} must be a section with the keys {}, not {}", place(mark_of(node, mark)),
          path.empty() ? "the job" : path, fmt::join(names_below(path), ", "), describe(node)));
    }
    if (override_.empty()) sections_.emplace(path, node.Mark());
    for (const auto& pair : node) {
      if (!pair.first.IsScalar()) {
        throw dist::UsageError(place(pair.first.Mark()) + ": a key must be a single word");
      }
      const std::string& name = pair.first.Scalar();
      entry(path.empty() ? name : path + "." + name, pair.second, pair.first.Mark());
    }
  }

  void entry(const std::string& path, const YAML::Node& value, const YAML::Mark& mark) {
    const auto [first, fresh] = seen_.emplace(path, mark);
    if (!fresh) {
      throw dist::UsageError(
          fmt::format("{}: key \"{}\" is given twice (first in line {}); remove one", place(mark),
                      path, first->second.line + 1));
    }
    const std::size_t dot = path.rfind('.');
    const std::string parent = dot == std::string::npos ? "" : path.substr(0, dot);
    const std::string name = dot == std::string::npos ? path : path.substr(dot + 1);
    for (const Key& key : keys()) {
      if (key.path == path || key.path == parent + ".*") return bind(key, path, name, value, mark);
    }
    const auto known = names_below(parent);
    if (!names_below(path).empty()) return section(value, path, mark);
    throw dist::UsageError(fmt::format(
        "{}: unknown key \"{}\"{} (allowed{}: {})", place(mark), path, suggestion(name, known),
        parent.empty() ? "" : " in " + parent, fmt::join(known, ", ")));
  }

  void bind(const Key& key, const std::string& path, const std::string& name,
            const YAML::Node& value, const YAML::Mark& mark) {
    if (!key.bind(config, name, value)) {
      throw dist::UsageError(fmt::format("{}: {} must be {}, not {}{}", place(mark_of(value, mark)),
                                         path, key.allowed, describe(value),
                                         suggestion(odd_word(value, key.choices), key.choices)));
    }
    bound_.insert(key.path);
  }

  std::string file_;
  std::string override_;  ///< "--set KEY" while an override is read
  YAML::Mark root_;
  std::map<std::string, YAML::Mark> seen_;
  std::map<std::string, YAML::Mark> sections_;
  std::set<std::string> bound_;
};

fs::path resolve(const fs::path& folder, const fs::path& path) {
  const fs::path resolved = (folder / path).lexically_normal();
  return resolved.has_filename() ? resolved : resolved.parent_path();
}

bool is_within(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

void resolve_paths(JobConfig& config, const fs::path& file) {
  const fs::path folder = fs::absolute(file).parent_path();
  if (!config.continued.empty()) {
    config.continued = resolve(folder, config.continued);
    const Continuation found = find_continuation(config.continued);
    config.model = found.checkpoint;
    config.earlier_work = found.work;
  }
  for (fs::path* path : {&config.model, &config.output, &config.data.forget, &config.data.retain}) {
    *path = resolve(folder, *path);
  }
  for (auto& [name, path] : config.data.evaluate) path = resolve(folder, path);
  if (!config.evaluate.control.empty()) {
    config.evaluate.control = resolve(folder, config.evaluate.control);
  }
  config.work = config.work.empty() ? fs::path(config.output.string() + ".work")
                                    : resolve(folder, config.work);
  // Symbolic links could hide that two of them are one directory.
  const fs::path model = fs::weakly_canonical(config.model);
  const fs::path output = fs::weakly_canonical(config.output);
  const fs::path work = fs::weakly_canonical(config.work);
  if (is_within(output, model) || is_within(model, output)) {
    throw dist::UsageError(
        fmt::format("{}: output {} and model {} overlap; the base checkpoint is never written to, "
                    "choose another output",
                    file.string(), config.output.string(), config.model.string()));
  }
  if (is_within(work, model) || is_within(work, output) || is_within(output, work)) {
    throw dist::UsageError(
        fmt::format("{}: work {} overlaps with the model or the output; choose another directory",
                    file.string(), config.work.string()));
  }
  if (config.evaluate.control.empty()) return;
  const fs::path control = fs::weakly_canonical(config.evaluate.control);
  for (const fs::path& written : {output, work}) {
    if (is_within(written, control) || is_within(control, written)) {
      throw dist::UsageError(
          fmt::format("{}: evaluate.control {} overlaps with the output or the work directory; "
                      "give a checkpoint "
                      "that never saw the forget set",
                      file.string(), config.evaluate.control.string()));
    }
  }
}

void check_holdout(const JobConfig& config, const fs::path& file) {
  const std::string& holdout = config.evaluate.holdout;
  if (holdout.empty() || config.data.evaluate.contains(holdout)) return;
  std::vector<std::string> names;
  for (const auto& [name, path] : config.data.evaluate) names.push_back(name);
  throw dist::UsageError(
      fmt::format("{}: evaluate.holdout \"{}\" is not a set of data.evaluate{} (sets there: {})",
                  file.string(), holdout, suggestion(holdout, names),
                  names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

void check_growth(const JobConfig& config, const fs::path& file) {
  const auto& refine = config.refine;
  if (refine.grow_rounds == 0 || refine.train != JobConfig::Train::projections) return;
  throw dist::UsageError(fmt::format(
      "{}: refine.grow_rounds adds projections to weights that are trained; with "
      "refine.train: projections they are what is trained, set refine.grow_rounds: 0 or "
      "train: subspace",
      file.string()));
}

JobConfig bind_all(const fs::path& file, const std::string& text,
                   const std::vector<std::string>& overrides, JobConfig defaults) {
  Binder binder(file.string(), std::move(defaults));
  binder.read_file(text);
  for (const std::string& assignment : overrides) binder.read_override(assignment);
  binder.require_all();
  return std::move(binder.config);
}

}  // namespace

std::map<std::string, fs::path> JobConfig::sets() const {
  auto all = data.evaluate;
  all.emplace("forget", data.forget);
  all.emplace("retain", data.retain);
  return all;
}

std::int64_t JobConfig::samples() const {
  return std::max(project ? sites.samples : 0, refine.train != Train::none ? refine.samples : 0);
}

JobConfig preset_defaults(Preset preset) {
  JobConfig config;
  config.preset = preset;
  if (preset == Preset::reliable) return config;
  config.project = true;
  config.refine.tamper_resistance = 0;
  config.refine.samples = 0;
  if (preset == Preset::fast) {
    config.refine.train = JobConfig::Train::none;
    return config;
  }
  // arXiv 2508.15449: two directions a request at the outputs of MLPs, started from what the retain
  // states leave free, trained on −CE(forget) + 1.2 CE(retain) by plain SGD.
  config.sites.modules = {"down_proj.output"};
  config.subspace.rule = solver::Rule::retain_complement;
  config.subspace.projector = solver::ProjectorKind::orthogonal;
  config.subspace.dimension = 2;
  config.refine.train = JobConfig::Train::projections;
  config.refine.forget_loss = JobConfig::ForgetLoss::gradient_ascent;
  config.refine.retain_loss = JobConfig::RetainLoss::cross_entropy;
  config.refine.forget_weight = 1;
  config.refine.retain_weight = 1.2;
  config.refine.optimizer = JobConfig::Optimizer::sgd;
  config.refine.steps = 300;
  config.refine.learning_rate = 2e-4;
  return config;
}

JobConfig parse_job(const fs::path& file, const std::string& text,
                    const std::vector<std::string>& overrides) {
  // Twice: the first time tells the preset, whose defaults the other keys are read on top of.
  const Preset preset = bind_all(file, text, overrides, {}).preset;
  JobConfig config = bind_all(file, text, overrides, preset_defaults(preset));
  config.subspace.seed = config.seed;
  resolve_paths(config, file);
  check_holdout(config, file);
  check_growth(config, file);
  return config;
}

json settings(const JobConfig& config) {
  json all = json::object();
  for (const Key& key : keys()) {
    json* place = &all;
    std::string rest = key.path;
    for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
      place = &(*place)[rest.substr(0, dot)];
      rest.erase(0, dot + 1);
    }
    (rest == "*" ? *place : (*place)[rest]) = key.show(config);
  }
  return all;
}

std::string key_table() {
  std::string table = "| key | allowed | default | meaning |\n|---|---|---|---|\n";
  const JobConfig defaults;
  for (const Key& key : keys()) {
    std::string standard = key.standard;
    if (standard.empty()) {
      const json value = key.show(defaults);
      standard = value.is_string() ? value.get<std::string>() : value.dump();
    }
    // In backquotes: "<output>.work" would pass for markup.
    standard = key.required ? "required" : "`" + standard + "`";
    table += fmt::format("| `{}` | {} | {} | {} |\n", key.path, key.allowed, standard, key.help);
  }
  return table;
}

}  // namespace mrp::jobs
