#include "shard/site.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

struct SiteKind {
  std::string_view name;
  SiteModule module;
  Side side;
};

/// The places that exist, in order of the forward pass. qkv and gate_up have no output side: their
/// outputs pass a nonlinearity or rotation that a projection does not commute with.
constexpr std::array kKinds = {
    SiteKind{"qkv.input", SiteModule::qkv, Side::input},
    SiteKind{"o_proj.input", SiteModule::o_proj, Side::input},
    SiteKind{"o_proj.output", SiteModule::o_proj, Side::output},
    SiteKind{"gate_up.input", SiteModule::gate_up, Side::input},
    SiteKind{"down_proj.input", SiteModule::down_proj, Side::input},
    SiteKind{"down_proj.output", SiteModule::down_proj, Side::output},
    SiteKind{"stream.output", SiteModule::stream, Side::output},
};

constexpr std::string_view kPrefix = "layers.";

std::string allowed() {
  std::vector<std::string_view> names;
  for (const SiteKind& kind : kKinds) names.push_back(kind.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const SiteKind* find_kind(std::string_view name) {
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(),
                                   [&](const SiteKind& kind) { return kind.name == name; });
  return found == kKinds.end() ? nullptr : found;
}

}  // namespace

std::string Site::name() const {
  for (const SiteKind& kind : kKinds) {
    if (kind.module == module && kind.side == side) {
      return fmt::format("{}{}.{}", kPrefix, layer, kind.name);
    }
  }
  MRP_EXPECT(false, "a site of a kind that does not exist");
  return {};
}

Site Site::parse(const std::string& name) {
  const std::string_view text = name;
  if (text.starts_with(kPrefix)) {
    const char* first = text.data() + kPrefix.size();
    const char* last = text.data() + text.size();
    Site site;
    const auto [rest, error] = std::from_chars(first, last, site.layer);
    if (error == std::errc() && site.layer >= 0 && *first != '-' && rest != last && *rest == '.') {
      if (const SiteKind* kind = find_kind({rest + 1, last})) {
        site.module = kind->module;
        site.side = kind->side;
        return site;
      }
    }
  }
  throw dist::UsageError(
      fmt::format("\"{}\" is no site; write layers.<number>.<one of: {}>", name, allowed()));
}

std::int64_t Site::width(const io::ModelConfig& config) const {
  if (module == SiteModule::o_proj && side == Side::input) return config.heads * config.head_dim;
  if (module == SiteModule::down_proj && side == Side::input) return config.intermediate_size;
  return config.hidden_size;
}

bool Site::is_split() const {
  return side == Side::input && (module == SiteModule::o_proj || module == SiteModule::down_proj);
}

std::vector<Site> make_sites(const std::vector<std::string>& modules,
                             const std::vector<std::int64_t>& layers,
                             const io::ModelConfig& config) {
  std::vector<Site> sites;
  for (const std::string& module : modules) {
    const SiteKind* kind = find_kind(module);
    if (kind == nullptr) {
      throw dist::UsageError(
          fmt::format("\"{}\" is no site module; use one or more of: {}", module, allowed()));
    }
    for (const std::int64_t layer : layers) {
      if (layer < 0 || layer >= config.layers) {
        throw dist::UsageError(fmt::format("layer {} does not exist; the model has layers 0 to {}",
                                           layer, config.layers - 1));
      }
      sites.push_back({layer, kind->module, kind->side});
    }
  }
  // The order of Site's members and enumerators is the order of the forward pass.
  std::sort(sites.begin(), sites.end());
  sites.erase(std::unique(sites.begin(), sites.end()), sites.end());
  return sites;
}

}  // namespace mrp::shard
