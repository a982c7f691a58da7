#include "solver/krylov.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "dist/error.hpp"
#include "solver/random.hpp"

namespace mrp::solver {
namespace {

constexpr std::int64_t width = 16;    // of a block: the fewest columns with a fast product
constexpr double relative = 1e-10;    // residual of a pair against its own eigenvalue
constexpr double attainable = 1e-13;  // residual against ‖A‖ that rounding allows

double largest_magnitude(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// An orthonormal basis Q with the images A Q and the projection Qᵀ A Q.
class Basis {
 public:
  Basis(std::int64_t n, std::int64_t capacity)
      : vectors_(n, capacity), images_(n, capacity), projection_(capacity, capacity) {}

  std::int64_t size() const { return size_; }
  bool full() const { return size_ + width > vectors_.columns; }

  // Makes the columns of x orthonormal and orthogonal to the basis. Columns that depend on others
  // are replaced by what the factorisation puts there, which the next pass makes orthogonal too.
  bool orthogonalise(Tall& x) const {
    constexpr int passes = 6;
    for (int pass = 0; pass < passes; ++pass) {
      Tall inside(size_, x.columns);
      product(Op::transposed, vectors_, x, 1, 0, inside);
      product(Op::none, vectors_, inside, -1, 1, x);
      x = orthonormal(std::move(x));
      if (pass > 0 && largest_magnitude(inside.values) < 1e-10) return true;
    }
    return size_ == 0;
  }

  void append(const Tall& x, const Tall& image) {
    const std::int64_t n = x.rows, first = size_;
    std::copy(x.values.begin(), x.values.end(), vectors_.values.begin() + first * n);
    std::copy(image.values.begin(), image.values.end(), images_.values.begin() + first * n);
    size_ += x.columns;
    Tall columns(size_, x.columns);
    product(Op::transposed, vectors_, image, 1, 0, columns);
    for (std::int64_t j = 0; j < columns.columns; ++j) {
      for (std::int64_t i = 0; i < size_; ++i) {
        projection_(i, first + j) = projection_(first + j, i) = columns(i, j);
      }
    }
  }

  Tall projection() const {
    Tall result(size_, size_);
    for (std::int64_t j = 0; j < size_; ++j) {
      for (std::int64_t i = 0; i < size_; ++i) result(i, j) = projection_(i, j);
    }
    return result;
  }

  Tall vectors(const Tall& coefficients) const { return combine(vectors_, coefficients); }
  Tall images(const Tall& coefficients) const { return combine(images_, coefficients); }

  // The basis becomes the Ritz vectors with these coefficients and values.
  void restart(const Tall& coefficients, const std::vector<double>& values) {
    const Tall vectors = this->vectors(coefficients), images = this->images(coefficients);
    std::copy(vectors.values.begin(), vectors.values.end(), vectors_.values.begin());
    std::copy(images.values.begin(), images.values.end(), images_.values.begin());
    size_ = coefficients.columns;
    for (std::int64_t j = 0; j < size_; ++j) {
      for (std::int64_t i = 0; i < size_; ++i) {
        projection_(i, j) = i == j ? values[static_cast<std::size_t>(j)] : 0;
      }
    }
  }

 private:
  // y = alpha · op(Q) x + beta · y for the columns in use of `a`.
  void product(Op op, const Tall& a, const Tall& x, double alpha, double beta, Tall& y) const {
    gemm(op, Op::none, y.rows, y.columns, op == Op::none ? size_ : a.rows, alpha, a.values.data(),
         a.rows, x.values.data(), x.rows, beta, y.values.data(), y.rows);
  }

  Tall combine(const Tall& a, const Tall& coefficients) const {
    Tall result(a.rows, coefficients.columns);
    product(Op::none, a, coefficients, 1, 0, result);
    return result;
  }

  Tall vectors_, images_;
  Tall projection_;
  std::int64_t size_ = 0;
};

class Krylov {
 public:
  Krylov(const dist::Communicator& comm, const SymmetricOperator& a, std::int64_t n, std::int64_t k)
      : comm_(comm), a_(a), n_(n), k_(k), basis_(n, std::min(2 * k + 16 * width, n)) {}

  std::optional<KrylovPairs> run() {
    const std::int64_t most_columns = std::max<std::int64_t>(n_ / 4, 512);
    std::int64_t next_test = k_ + width;
    std::vector<double> previous;
    Tall block = fresh_block();
    while (columns_ < most_columns) {
      if (!extend(block)) return {};
      const bool test = columns_ >= next_test && basis_.size() >= k_ + width;
      if (!test && !basis_.full()) continue;
      if (!rayleigh_ritz()) return {};
      if (test) {
        const bool converged = compute_residuals();
        if (converged && confirms(previous)) return result();
        if (converged) {
          previous = ritz_values_;
          block = fresh_block();
        } else if (!previous.empty()) {
          block = leading_residuals();
        }
        const std::int64_t quarter = std::max(3 * width, columns_ / 4);
        next_test = columns_ + (converged ? quarter : 4 * width);
      }
      if (basis_.full()) restart();
    }
    return {};
  }

 private:
  Tall fresh_block() { return random_normal(n_, width, seed_++); }

  // Adds the block to the basis, and leaves A times it in its place.
  bool extend(Tall& block) {
    if (comm_.all_reduce(static_cast<int>(!basis_.orthogonalise(block)), dist::ReduceOp::max) != 0)
      return false;
    Tall image = a_(block);
    basis_.append(block, image);
    columns_ += width;
    block = std::move(image);
    return true;
  }

  // All ranks go on with the bits of one.
  bool rayleigh_ritz() {
    coefficients_ = basis_.projection();
    const bool finite = std::all_of(coefficients_.values.begin(), coefficients_.values.end(),
                                    [](double x) { return std::isfinite(x); });
    if (comm_.all_reduce(static_cast<int>(finite), dist::ReduceOp::min) == 0) return false;
    ritz_values_ = diagonalise(coefficients_);
    comm_.broadcast(std::span<double>(ritz_values_));
    comm_.broadcast(std::span<double>(coefficients_.values));
    return true;
  }

  double tolerance(double value) const {
    return std::max(relative * std::abs(value), attainable * largest_magnitude(ritz_values_));
  }

  // Of the leading Ritz pairs, k and a block. Whether the k are accurate.
  bool compute_residuals() {
    const Tall leading = leading_columns(coefficients_, k_ + width);
    vectors_ = basis_.vectors(leading);
    residuals_ = basis_.images(leading);
    unfinished_.clear();
    for (std::int64_t j = 0; j < residuals_.columns; ++j) {
      const double value = ritz_values_[static_cast<std::size_t>(j)];
      double squares = 0;
      for (std::int64_t i = 0; i < n_; ++i) {
        residuals_(i, j) -= value * vectors_(i, j);
        squares += residuals_(i, j) * residuals_(i, j);
      }
      if (j >= k_ || !(std::sqrt(squares) <= tolerance(value))) unfinished_.push_back(j);
    }
    int converged = unfinished_.front() >= k_;
    comm_.broadcast(std::span<int>(&converged, 1));
    return converged != 0;
  }

  // In exact arithmetic A times the last block lies in the span of these, as long as no fresh block
  // has joined; after that they are what reduces the residuals.
  Tall leading_residuals() const {
    Tall block(n_, width);
    for (std::int64_t j = 0; j < width; ++j) {
      const auto column = residuals_.values.begin() + unfinished_[static_cast<std::size_t>(j)] * n_;
      std::copy(column, column + n_, block.values.begin() + j * n_);
    }
    return block;
  }

  bool confirms(const std::vector<double>& previous) const {
    if (previous.empty()) return false;
    for (std::size_t j = 0; j < static_cast<std::size_t>(k_); ++j) {
      if (std::abs(ritz_values_[j] - previous[j]) > tolerance(previous[j])) return false;
    }
    return true;
  }

  KrylovPairs result() const {
    return {{ritz_values_.begin(), ritz_values_.begin() + k_}, leading_columns(vectors_, k_)};
  }

  void restart() {
    const std::int64_t kept = k_ + (basis_.size() - k_) / 3;
    basis_.restart(leading_columns(coefficients_, kept), ritz_values_);
  }

  const dist::Communicator& comm_;
  const SymmetricOperator& a_;
  std::int64_t n_, k_;
  Basis basis_;
  std::uint64_t seed_ = 0;
  std::int64_t columns_ = 0;         // of products so far
  std::vector<double> ritz_values_;  // descending, of the whole basis
  Tall coefficients_;                // of the Ritz vectors in the basis
  Tall vectors_, residuals_;         // of the k + width leading Ritz pairs
  std::vector<std::int64_t> unfinished_;
};

}  // namespace

std::optional<KrylovPairs> krylov_pairs(const dist::Communicator& comm, const SymmetricOperator& a,
                                        std::int64_t n, std::int64_t k) {
  MRP_EXPECT(k > 0 && 4 * k <= n && n >= 256);
  return Krylov(comm, a, n, k).run();
}

}  // namespace mrp::solver
