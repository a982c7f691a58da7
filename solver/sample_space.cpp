// Sample space: the Gram matrix G = X Xᵀ of all rows takes the place of the covariances. With
// K = N_r ε I + G_rr = L Lᵀ and T = L⁻¹ G_rf, Woodbury's identity
//   (C_r + εI)⁻¹ = (1/ε) [I − X_rᵀ K⁻¹ X_r]
// turns the pencil into the symmetric N_f × N_f problem
//   S u = λ u,   S = (1 / (N_f ε)) [G_ff − Tᵀ T],
// whose vectors lift to patterns A = X_fᵀ u / √(N_f λ) and filters V = (C_r + εI)⁻¹ A with Vᵀ A =
// I.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/eigensolver.hpp"
#include "solver/moments.hpp"
#include "solver/space.hpp"

namespace mrp::solver {
namespace {

// The pencil between two sets of rows of one Gram matrix.
struct Division {
  double epsilon;
  DistMatrix factor;  // L
  DistMatrix cross;   // T
  DistMatrix schur;   // S
};

Tall lift(const dist::Communicator& comm, const StateSource& states, const DistMatrix& u) {
  return transposed_states_times(comm, states, gather(u));
}

void scale_columns(Tall& a, const std::vector<double>& factors) {
  for (std::int64_t j = 0; j < a.columns; ++j) {
    for (std::int64_t i = 0; i < a.rows; ++i) a(i, j) *= factors[static_cast<std::size_t>(j)];
  }
}

class SampleSpace : public Space {
 public:
  SampleSpace(const BlacsGrid& grid, const Pool& pool, double ridge)
      : pool_(pool),
        ridge_(ridge / static_cast<double>(pool.width())),
        block_(choose_block(grid, pool.rows())),
        gram_(gram(grid, pool, block_)),
        squared_norms_(diagonal(gram_)),
        forget_rows_(masked_rows(forget_mask(pool), true)),
        retain_rows_(masked_rows(retain_mask(pool), true)) {
    forget_trace_ = mean_squared_norm(forget_rows_);
    retain_trace_ = mean_squared_norm(retain_rows_);
  }

  Directions gevp(std::int64_t k) override {
    const Division& own = division();
    EigenPairs pairs = top_eigenpairs(own.schur, k, "pencil of forget and retain Gram matrices");
    DistMatrix z(grid(), pool_.retain_rows(), k, block_);  // K⁻¹ G_rf u
    multiply(Op::none, Op::none, 1, own.cross, pairs.vectors, 0, z);
    solve_lower(Op::transposed, own.factor, z);

    Directions result;
    result.kernel = lift(comm(), pool_.forget(), pairs.vectors);
    result.filters = lift(comm(), pool_.retain(), z);
    for (std::size_t i = 0; i < result.filters.values.size(); ++i) {
      result.filters.values[i] = (result.kernel.values[i] - result.filters.values[i]) / own.epsilon;
    }
    result.noise = static_cast<double>(pool_.rows()) * std::numeric_limits<double>::epsilon() *
                   forget_trace_ / own.epsilon;
    std::vector<double> factors;
    for (const double value : pairs.values) {
      const double scale = static_cast<double>(pool_.forget_rows()) * value;
      factors.push_back(value > result.noise ? 1 / std::sqrt(scale) : 0);
    }
    scale_columns(result.kernel, factors);
    scale_columns(result.filters, factors);
    result.values = std::move(pairs.values);
    return result;
  }

  // With G = U Λ Uᵀ, the columns of Xᵀ U Λ^{-1/2} are an orthonormal basis of what the states span,
  // and the rows of U Λ^{1/2} are the states in it; there the rules are those of feature space.
  Directions leading(const SubspaceOptions& options, std::int64_t k) override {
    EigenPairs basis = top_eigenpairs(gram_, pool_.rows(), "Gram matrix");
    const double cut = static_cast<double>(pool_.rows()) * std::numeric_limits<double>::epsilon() *
                       basis.values.front();
    const auto spanned = std::count_if(basis.values.begin(), basis.values.end(),
                                       [&](double value) { return value > cut; });
    const std::vector<std::int64_t> columns = index_range(0, spanned);

    const auto column_index = basis.vectors.column_indices();
    DistMatrix states = basis.vectors;
    for (std::int64_t j = 0; j < states.local_columns(); ++j) {
      const double value =
          basis.values[static_cast<std::size_t>(column_index[static_cast<std::size_t>(j)])];
      for (std::int64_t i = 0; i < states.local_rows(); ++i)
        states.at(i, j) *= std::sqrt(std::max(value, 0.0));
    }
    Directions result = leading_directions(covariance(states, forget_rows_, columns),
                                           covariance(states, retain_rows_, columns), options, k);

    Tall weights = result.kernel;  // Λ^{-1/2} times the directions in the basis
    for (std::int64_t j = 0; j < weights.columns; ++j) {
      for (std::int64_t i = 0; i < weights.rows; ++i) {
        weights(i, j) /= std::sqrt(basis.values[static_cast<std::size_t>(i)]);
      }
    }
    const DistMatrix vectors = select_columns(basis.vectors, columns);
    DistMatrix u(grid(), pool_.rows(), weights.columns, block_);
    multiply(Op::none, Op::none, 1, vectors, scatter(grid(), weights, block_), 0, u);
    result.kernel = lift(comm(), pool_, u);
    return result;
  }

  std::vector<double> division_values(const RowMask& mask, std::int64_t k) override {
    return top_eigenvalues(divide_rows(masked_rows(mask, true), masked_rows(mask, false)).schur, k,
                           "pencil of a random division");
  }

  Tall solve_retain(const Tall& q) override {
    const Division& own = division();
    DistMatrix z = scatter(grid(), states_times(comm(), pool_.retain(), q), block_);
    solve_lower(Op::none, own.factor, z);
    solve_lower(Op::transposed, own.factor, z);
    Tall result = lift(comm(), pool_.retain(), z);
    for (std::size_t i = 0; i < result.values.size(); ++i) {
      result.values[i] = (q.values[i] - result.values[i]) / own.epsilon;
    }
    return result;
  }

  Tall forget_form(const Tall& b) override { return form(pool_.forget(), b); }
  Tall retain_form(const Tall& b) override { return form(pool_.retain(), b); }

 private:
  const BlacsGrid& grid() const { return gram_.grid(); }
  const dist::Communicator& comm() const { return grid().comm(); }

  double mean_squared_norm(const std::vector<std::int64_t>& rows) const {
    double sum = 0;
    for (const std::int64_t row : rows) sum += squared_norms_[static_cast<std::size_t>(row)];
    return sum / static_cast<double>(rows.size());
  }

  Division divide_rows(const std::vector<std::int64_t>& first,
                       const std::vector<std::int64_t>& second) const {
    const auto first_rows = static_cast<double>(first.size());
    const auto second_rows = static_cast<double>(second.size());
    Division result{ridge_ * mean_squared_norm(second), select(gram_, second, second),
                    select(gram_, second, first), select(gram_, first, first)};
    shift_diagonal(result.factor, second_rows * result.epsilon);
    cholesky(result.factor, "regularised retain Gram matrix");
    solve_lower(Op::none, result.factor, result.cross);
    multiply(Op::transposed, Op::none, -1, result.cross, result.cross, 1, result.schur);
    scale(result.schur, 1 / (first_rows * result.epsilon));
    return result;
  }

  const Division& division() {
    if (!division_) division_ = divide_rows(forget_rows_, retain_rows_);
    return *division_;
  }

  DistMatrix covariance(const DistMatrix& states, const std::vector<std::int64_t>& rows,
                        const std::vector<std::int64_t>& columns) const {
    const DistMatrix part = select(states, rows, columns);
    DistMatrix result(grid(), part.columns(), part.columns(), block_);
    multiply(Op::transposed, Op::none, 1 / static_cast<double>(rows.size()), part, part, 0, result);
    return result;
  }

  Tall form(const StateSource& states, const Tall& b) const {
    const Tall projected = states_times(comm(), states, b);
    Tall result = cross(projected, projected);
    for (double& value : result.values) value /= static_cast<double>(states.rows());
    return result;
  }

  const Pool& pool_;
  double ridge_;  // ε / tr(C_r)
  std::int64_t block_;
  DistMatrix gram_;
  std::vector<double> squared_norms_;
  std::vector<std::int64_t> forget_rows_, retain_rows_;
  std::optional<Division> division_;  // of forget and retain, made when first needed
};

}  // namespace

std::unique_ptr<Space> make_sample_space(const BlacsGrid& grid, const Pool& pool, double ridge) {
  return std::make_unique<SampleSpace>(grid, pool, ridge);
}

}  // namespace mrp::solver
