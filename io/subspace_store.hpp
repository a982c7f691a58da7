// subspaces.h5: the projector P = I − A Bᵀ of every site, with what is known about it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace mrp::io {

/// A and B are row-major [width × k], Bᵀ A = I_k; A = B for an orthogonal projector. k may be 0.
struct StoredSubspace {
  std::string site;
  std::int64_t width = 0;
  std::int64_t k = 0;
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> eigenvalues;  ///< all that were computed, descending
  double null_edge = 0;             ///< eigenvalues above it count as signal; 0 if not measured
  double retain_distortion = 0;     ///< E‖h − P h‖² / E‖h‖² over retain states
  double forget_removed = 0;        ///< the same over forget states
};

struct SubspaceFile {
  std::string fingerprint;
  std::string rule;  ///< with its parameters, as JSON text
  std::map<std::string, StoredSubspace> sites;

  /// Atomic; one rank calls it.
  void write(const std::filesystem::path& path) const;
  /// @throws InputError for foreign files, wrong shapes, non-finite values or Bᵀ A ≠ I.
  static SubspaceFile read(const std::filesystem::path& path);
};

}  // namespace mrp::io
