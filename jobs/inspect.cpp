#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "dist/error.hpp"
#include "io/checkpoint.hpp"
#include "io/delta_store.hpp"
#include "io/file.hpp"
#include "io/model_config.hpp"
#include "io/state_store.hpp"
#include "io/subspace_store.hpp"
#include "io/token_dataset.hpp"
#include "jobs/metrics_file.hpp"
#include "jobs/relearn_file.hpp"
#include "jobs/stages.hpp"
#include "shard/edit/output_directory.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string tensor_rows(const io::SafetensorsFile& file) {
  std::string text;
  for (const io::TensorInfo& tensor : file.tensors()) {
    text +=
        fmt::format("  {:<58}{:>8}{:>20}{:>12}\n", tensor.name, io::dtype_name(tensor.dtype),
                    fmt::format("[{}]", fmt::join(tensor.shape, " × ")), size_text(tensor.bytes()));
  }
  return text;
}

std::string safetensors_text(const io::SafetensorsFile& file) {
  return fmt::format("{}: {} tensors, {}\n{}", file.path().filename().string(),
                     file.tensors().size(), size_text(file.file_size()), tensor_rows(file));
}

std::string checkpoint_text(const fs::path& path) {
  const io::Checkpoint checkpoint(path);
  std::string text = fmt::format("checkpoint {}\n", path.string());
  if (fs::exists(path / "config.json")) {
    const auto config = io::ModelConfig::read(path);
    text += fmt::format(
        "{}: {} layers, hidden {}, intermediate {}, {} heads ({} key-value) of {}, vocabulary "
        "{}{}\n",
        config.model_type, config.layers, config.hidden_size, config.intermediate_size,
        config.heads, config.kv_heads, config.head_dim, config.vocab_size,
        config.tie_word_embeddings ? ", tied embeddings" : "");
  }
  const std::string merged = shard::merged_fingerprint(path);
  if (!merged.empty()) text += fmt::format("written by mrp merge, fingerprint {}\n", merged);
  std::uint64_t bytes = 0;
  for (const auto& file : checkpoint.files()) bytes += file.file_size();
  text += fmt::format("{} tensors in {} files, {}\n", checkpoint.names().size(),
                      checkpoint.files().size(), size_text(bytes));
  for (const auto& file : checkpoint.files()) text += safetensors_text(file);
  return text;
}

std::string tokens_text(const fs::path& path) {
  const auto tokens = io::TokenDataset::read(path);
  std::string text = fmt::format(
      "tokens, vocabulary {}, fingerprint {}\n{:<20}{:>8}{:>10}{:>10}{:>10}{:>10}  {}\n",
      tokens.vocab_size, tokens.fingerprint, "set", "items", "tokens", "targets", "options",
      "too long", "source");
  for (const auto& [name, set] : tokens.sets) {
    const auto& mask = set.items.target_mask;
    text += fmt::format("{:<20}{:>8}{:>10}{:>10}{:>10}{:>10}  {}\n", name, set.items.count(),
                        set.items.token_ids.size(), std::count(mask.begin(), mask.end(), 1),
                        set.options.sequences.count(), set.dropped_too_long, set.source);
    if (set.sampling) {
      text += fmt::format("  {} drawn, {} dropped: {}\n", set.sampling->drawn,
                          set.sampling->dropped, set.sampling->rule);
    }
  }
  return text;
}

std::string states_text(const fs::path& path) {
  const io::StateReader states(path);
  std::string text = fmt::format("hidden states, {}, fingerprint {}\n",
                                 io::dtype_name(states.dtype()), states.fingerprint());
  for (const std::string& set : states.sets())
    text += fmt::format("{:<34}{:>10} rows\n", set, states.rows(set));
  for (const std::string& site : states.sites())
    text += fmt::format("{:<34}{:>10} wide\n", site, states.width(site));
  return text;
}

std::string subspaces_text(const fs::path& path) {
  const auto file = io::SubspaceFile::read(path);
  std::string text =
      fmt::format("subspaces, {}, fingerprint {}\n{:<34}{:>7}{:>5}{:>14}{:>12}{:>16}{:>16}\n",
                  file.rule, file.fingerprint, "site", "width", "k", "eigenvalue", "null edge",
                  "forget removed", "retain removed");
  for (const auto& [site, found] : file.sites) {
    text += fmt::format("{:<34}{:>7}{:>5}{:>14.4g}{:>12.4g}{:>16.3g}{:>16.3g}\n", site, found.width,
                        found.k, found.eigenvalues.empty() ? 0.0 : found.eigenvalues[0],
                        found.null_edge, found.forget_removed, found.retain_distortion);
  }
  return text;
}

/// Σ of squares of a tensor's change, read in blocks of some MiB.
double squared_norm(const io::DeltaReader& deltas, const std::string& tensor,
                    const std::vector<std::int64_t>& shape) {
  const std::int64_t rows = shape.size() == 1 ? 1 : shape[0], columns = shape.back();
  const std::int64_t step = std::max<std::int64_t>((std::int64_t{1} << 22) / columns, 1);
  std::vector<float> block;
  double sum = 0;
  for (std::int64_t row = 0; row < rows; row += step) {
    const dist::Range part{row, std::min(row + step, rows)};
    block.resize(static_cast<std::size_t>(part.size() * columns));
    deltas.read(tensor, part, {0, columns}, block);
    for (const float x : block) sum += double{x} * double{x};
  }
  return sum;
}

std::string deltas_text(const fs::path& path) {
  const io::DeltaReader deltas(path);
  std::map<std::string, double> squares;
  double total = 0;
  for (const auto& [tensor, shape] : deltas.layout().tensors) {
    total += squares[tensor] = squared_norm(deltas, tensor, shape);
  }
  std::string text =
      fmt::format("trained changes, {}, fingerprint {}\n{:<48}{:>20}{:>12}{:>14}{:>8}\n",
                  deltas.layout().summary, deltas.fingerprint(), "tensor", "shape", "norm",
                  "root mean sq.", "share");
  for (const auto& [tensor, shape] : deltas.layout().tensors) {
    const double square = squares.at(tensor);
    double elements = 1;
    for (const auto length : shape) elements *= static_cast<double>(length);
    text += fmt::format("{:<48}{:>20}{:>12.4g}{:>14.4g}{:>8.3f}\n", tensor,
                        fmt::format("[{}]", fmt::join(shape, " × ")), std::sqrt(square),
                        std::sqrt(square / elements), total > 0 ? square / total : 0.0);
  }
  return text;
}

std::string metrics_text(const fs::path& path) {
  const auto file = MetricsFile::read(path);
  std::string text = fmt::format("metrics, fingerprint {}\n", file.fingerprint);
  for (const auto& [set, sides] : file.sets) {
    for (const auto& [side, measured] : sides) {
      text += fmt::format("{} {}:", set, side);
      for (const auto& [name, value] : measured.items()) {
        if (value.is_number()) text += fmt::format(" {} {:.4g}", name, value.get<double>());
      }
      text += "\n";
    }
  }
  return text;
}

std::string relearn_text(const fs::path& path) {
  const auto file = RelearnFile::read(path);
  std::string text = fmt::format(
      "attacks, {}\n{:<12}{:<14}{:>8}{:>6}{:>11}  {:<11}{}\n",
      file.fingerprint.empty() ? "unfinished" : "fingerprint " + file.fingerprint, "model",
      "attacker", "rate", "seed", "direction", "projection", "answer probability by step");
  for (const auto& run : file.runs) {
    text += fmt::format("{:<12}{:<14}{:>8g}{:>6}{:>11}  {:<11}", run.at("model").get<std::string>(),
                        run.at("attacker").get<std::string>(),
                        run.at("learning_rate").get<double>(), run.at("seed").get<std::int64_t>(),
                        run.at("direction").get<int>(), run.at("projection").get<std::string>());
    for (const auto& point : run.at("curve")) {
      text += fmt::format(" {}: {:.3f}", point.at("step").get<std::int64_t>(),
                          point.at("answer_probability").get<double>());
    }
    text += "\n";
  }
  return text;
}

std::string manifest_text(const fs::path& path) {
  const auto manifest = io::Manifest::read(path);
  std::string text = fmt::format("manifest\n{:<12}{:>10}{:>12}{:>12}{:>7}  {}\n", "stage",
                                 "seconds", "memory", "sent", "ranks", "fingerprint");
  for (const auto& [name, stage] : manifest.stages) {
    text += fmt::format("{:<12}{:>10.2f}{:>12}{:>12}{:>7}  {}\n", name, stage.seconds,
                        size_text(stage.peak_memory), size_text(stage.sent), stage.ranks,
                        stage.fingerprint);
    for (const auto& timer : stage.timers) {
      text += fmt::format("  {:<40}{:>8} calls{:>10.2f} s\n", timer.name, timer.calls, timer.max);
    }
  }
  std::size_t unchanged = 0;
  for (const auto& [name, tensor] : manifest.tensors) {
    if (tensor.changed) text += fmt::format("{:<60} changed, leak {:.1e}\n", name, tensor.leak);
    unchanged += tensor.changed ? 0 : 1;
  }
  return text + fmt::format("{} of {} tensors unchanged\n", unchanged, manifest.tensors.size());
}

std::string json_format(const fs::path& path) {
  const auto root = nlohmann::json::parse(io::read_text(path), nullptr, false);
  return root.is_object() && root.contains("format") && root["format"].is_string() ? root["format"]
                                                                                   : "";
}

using Show = std::string (*)(const fs::path&);

/// How to show a file of ours, by the format it says it has; null for others.
Show find_show(const std::string& format) {
  constexpr std::pair<const char*, Show> kShows[] = {
      {"mrp.tokens", tokens_text},       {"mrp.states", states_text},
      {"mrp.subspaces", subspaces_text}, {"mrp.deltas", deltas_text},
      {"mrp.metrics", metrics_text},     {"mrp.relearn", relearn_text},
      {"mrp.manifest", manifest_text}};
  for (const auto& [name, show] : kShows) {
    if (format == name) return show;
  }
  return nullptr;
}

}  // namespace

std::string inspect(const fs::path& path) {
  if (fs::is_directory(path)) return checkpoint_text(path);
  if (path.extension() == ".safetensors") return safetensors_text(io::SafetensorsFile(path));
  const std::string format =
      path.extension() == ".json" ? json_format(path) : io::read_format(path);
  const Show show = find_show(format);
  if (show == nullptr) {
    throw dist::InputError(
        fmt::format("{} is no file of mrp's; inspect takes a checkpoint directory, *.safetensors, "
                    "*.h5 or *.json of a work directory",
                    path.string()));
  }
  return show(path);
}

}  // namespace mrp::jobs
