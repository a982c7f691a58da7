// What the solver's tests share: states in memory, golden files, grids, distances between
// subspaces.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "dist/communicator.hpp"
#include "solver/blacs_grid.hpp"
#include "solver/state_source.hpp"
#include "solver/subspace.hpp"
#include "solver/tall.hpp"

namespace mrp::solver::testing {

/// States [rows × width] in memory; every `sequence_length` rows are one sequence.
class MemoryStates : public StateSource {
 public:
  MemoryStates(std::int64_t rows, std::int64_t width, std::vector<float> values,
               std::int64_t sequence_length = 1)
      : rows_(rows), width_(width), values_(std::move(values)) {
    for (std::int64_t i = 0; i < rows; ++i) sequences_.push_back(i / sequence_length);
  }

  std::int64_t rows() const override { return rows_; }
  std::int64_t width() const override { return width_; }
  void read(dist::Range rows, dist::Range columns, std::span<float> out) const override {
    auto next = out.begin();
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      next = std::copy_n(values_.begin() + row * width_ + columns.begin, columns.size(), next);
    }
    ASSERT_EQ(next, out.end());
  }
  std::span<const std::int64_t> sequences() const override { return sequences_; }

  float& at(std::int64_t row, std::int64_t column) {
    return values_[static_cast<std::size_t>(row * width_ + column)];
  }

 private:
  std::int64_t rows_, width_;
  std::vector<float> values_;
  std::vector<std::int64_t> sequences_;
};

/// Normal states whose channel i has variance 1/(i+1), plus `signal` · normal along the channels in
/// `planted`. Rows of one sequence share the share `common` of their variance.
inline MemoryStates normal_states(std::uint64_t seed, std::int64_t rows, std::int64_t width,
                                  double signal = 0, std::vector<std::int64_t> planted = {},
                                  std::int64_t sequence_length = 1, double common = 0) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values;
  std::vector<double> shared(static_cast<std::size_t>(width));
  for (std::int64_t row = 0; row < rows; ++row) {
    if (row % sequence_length == 0)
      std::generate(shared.begin(), shared.end(), [&] { return normal(engine); });
    for (std::int64_t i = 0; i < width; ++i) {
      const double own = std::sqrt(1 - common) * normal(engine) +
                         std::sqrt(common) * shared[static_cast<std::size_t>(i)];
      values.push_back(static_cast<float>(own / std::sqrt(static_cast<double>(i + 1))));
    }
    for (const std::int64_t i : planted) {
      values[values.size() - static_cast<std::size_t>(width - i)] +=
          static_cast<float>(signal * normal(engine));
    }
  }
  return {rows, width, std::move(values), sequence_length};
}

template <class T>
std::vector<T> read_file(const std::string& name) {
  const std::string path = std::string(MRP_TEST_DATA) + "/solver/" + name;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no golden data at " + path + " (tests/solver/golden.py)");
  std::vector<T> values(std::filesystem::file_size(path) / sizeof(T));
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

/// Sine of the largest principal angle between span(a) and span(b), equal column counts.
inline double largest_angle(const Tall& a, const Tall& b) {
  const Tall qa = orthonormal(a);
  Tall rest = orthonormal(b);
  const Tall inside = multiply(qa, cross(qa, rest));
  double squares = 0;  // Frobenius norm: at least the largest sine
  for (std::size_t i = 0; i < rest.values.size(); ++i) {
    squares += std::pow(rest.values[i] - inside.values[i], 2);
  }
  return std::sqrt(squares);
}

/// I − A Bᵀ, column-major [width × width].
inline Tall projector_matrix(const Subspace& s) {
  Tall p(s.width, s.width);
  for (std::int64_t i = 0; i < s.width; ++i) {
    for (std::int64_t j = 0; j < s.width; ++j) {
      double sum = i == j ? 1 : 0;
      for (std::int64_t l = 0; l < s.k; ++l) {
        sum -=
            s.a[static_cast<std::size_t>(i * s.k + l)] * s.b[static_cast<std::size_t>(j * s.k + l)];
      }
      p(i, j) = sum;
    }
  }
  return p;
}

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

/// Runs `work` on every p × q grid that the world's ranks can form, one after the other.
inline void on_every_grid(const dist::Communicator& world,
                          const std::function<void(const BlacsGrid&)>& work) {
  for (int p = 1; p <= world.size(); ++p) {
    if (world.size() % p != 0) continue;
    SCOPED_TRACE("grid " + std::to_string(p) + " x " + std::to_string(world.size() / p));
    const BlacsGrid grid(world, p, world.size() / p);
    work(grid);
  }
}

}  // namespace mrp::solver::testing
