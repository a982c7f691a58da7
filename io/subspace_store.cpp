#include "io/subspace_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "dist/error.hpp"
#include "io/hdf5_array.hpp"

namespace mrp::io {

using dist::InputError;

namespace {

constexpr const char* format_name = "mrp.subspaces";
constexpr std::int64_t format_version = 1;
/// Of Bᵀ A against I, Frobenius norm: fp64 results are near 1e-12, anything above this is another
/// matrix.
constexpr double tolerance = 1e-6;

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

/// ‖BᵀA − I‖, one pass over the rows.
double deviation(const StoredSubspace& subspace) {
  const auto k = static_cast<std::size_t>(subspace.k);
  std::vector<double> product(k * k, 0.0);
  for (std::size_t row = 0; row < static_cast<std::size_t>(subspace.width); ++row) {
    for (std::size_t i = 0; i < k; ++i) {
      for (std::size_t j = 0; j < k; ++j) {
        product[i * k + j] += subspace.b[row * k + i] * subspace.a[row * k + j];
      }
    }
  }
  double sum = 0;
  for (std::size_t i = 0; i < k; ++i) product[i * k + i] -= 1;
  for (const double x : product) sum += x * x;
  return std::sqrt(sum);
}

/// What is wrong with a subspace, or "".
std::string defect(const StoredSubspace& subspace) {
  const auto [width, k] = std::pair(subspace.width, subspace.k);
  if (width <= 0 || k < 0 || k > width) return fmt::format("width {} with k = {}", width, k);
  const auto size = static_cast<std::size_t>(width) * static_cast<std::size_t>(k);
  if (subspace.a.size() != size || subspace.b.size() != size) {
    return fmt::format("A or B is not [{} × {}]", width, k);
  }
  const std::array figures = {subspace.null_edge, subspace.retain_distortion,
                              subspace.forget_removed};
  if (!all_finite(subspace.a) || !all_finite(subspace.b) || !all_finite(subspace.eigenvalues) ||
      !all_finite({figures.begin(), figures.end()})) {
    return "values that are not finite";
  }
  if (!std::is_sorted(subspace.eigenvalues.rbegin(), subspace.eigenvalues.rend())) {
    return "eigenvalues are not in descending order";
  }
  const double error = deviation(subspace);
  // Written so that a product that overflowed to NaN fails too.
  if (!(error <= tolerance)) return fmt::format("BᵀA differs from I by {:.2g}", error);
  return {};
}

void write_subspace(hid_t file, const StoredSubspace& subspace) {
  const auto group = create_group(file, subspace.site);
  const std::array shape = {subspace.width, subspace.k};
  write_array<double>(group.get(), "A", shape, subspace.a);
  write_array<double>(group.get(), "B", shape, subspace.b);
  const std::array count = {static_cast<std::int64_t>(subspace.eigenvalues.size())};
  write_array<double>(group.get(), "eigenvalues", count, subspace.eigenvalues);
  write_attribute(group.get(), "null_edge", subspace.null_edge);
  write_attribute(group.get(), "retain_distortion", subspace.retain_distortion);
  write_attribute(group.get(), "forget_removed", subspace.forget_removed);
}

StoredSubspace read_subspace(hid_t file, const std::string& site) {
  const auto group = open_group(file, site);
  StoredSubspace subspace;
  subspace.site = site;
  auto a = read_array<double>(group.get(), "A", 2);
  auto b = read_array<double>(group.get(), "B", 2);
  if (a.shape != b.shape) {
    throw InputError(object_name(group.get()) + ": A and B differ in shape; run solve again");
  }
  subspace.width = a.shape[0];
  subspace.k = a.shape[1];
  subspace.a = std::move(a.data);
  subspace.b = std::move(b.data);
  subspace.eigenvalues = read_vector<double>(group.get(), "eigenvalues");
  subspace.null_edge = read_real_attribute(group.get(), "null_edge");
  subspace.retain_distortion = read_real_attribute(group.get(), "retain_distortion");
  subspace.forget_removed = read_real_attribute(group.get(), "forget_removed");
  const auto problem = defect(subspace);
  if (!problem.empty()) {
    throw InputError(fmt::format("{}: {}; run solve again", object_name(group.get()), problem));
  }
  return subspace;
}

}  // namespace

void SubspaceFile::write(const std::filesystem::path& path) const {
  for (const auto& [site, subspace] : sites) {
    const auto problem = site == subspace.site ? defect(subspace) : "stored under another name";
    MRP_EXPECT(problem.empty(), site + ": " + problem);
  }
  write_hdf5(path, format_name, format_version, fingerprint, [&](hid_t file) {
    write_attribute(file, "rule", rule);
    for (const auto& [site, subspace] : sites) write_subspace(file, subspace);
  });
}

SubspaceFile SubspaceFile::read(const std::filesystem::path& path) {
  const auto file = open_hdf5(path);
  return as_input(path, [&] {
    check_format(file.get(), format_name, format_version);
    SubspaceFile result;
    result.fingerprint = read_text_attribute(file.get(), "fingerprint");
    result.rule = read_text_attribute(file.get(), "rule");
    for (const auto& site : children(file.get())) {
      result.sites.emplace(site, read_subspace(file.get(), site));
    }
    return result;
  });
}

}  // namespace mrp::io
