// Feature space: width × width covariances, Cholesky of C_r + εI.
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "dist/error.hpp"
#include "solver/dense.hpp"
#include "solver/generalized.hpp"
#include "solver/moments.hpp"
#include "solver/space.hpp"

namespace mrp::solver {
namespace {

constexpr const char* pencil_name = "pencil of forget and retain covariances";

class FeatureSpace : public Space {
 public:
  FeatureSpace(const BlacsGrid& grid, const Pool& pool, double ridge)
      : pool_(pool),
        ridge_(ridge / static_cast<double>(pool.width())),
        block_(choose_block(grid, pool.width())),
        forget_(covariance_sum(grid, pool, forget_mask(pool), block_)),
        retain_(covariance_sum(grid, pool, retain_mask(pool), block_)) {
    scale(forget_, 1 / static_cast<double>(pool.forget_rows()));
    scale(retain_, 1 / static_cast<double>(pool.retain_rows()));
    forget_trace_ = trace(forget_);
    retain_trace_ = trace(retain_);
  }

  Directions gevp(std::int64_t k) override {
    EigenPairs pairs = top_pencil_pairs(forget_, factor(), k, pencil_name);
    Directions result;
    result.values = std::move(pairs.values);
    result.filters = gather(pairs.vectors);
    result.kernel = product(retain_, result.filters);
    for (std::size_t i = 0; i < result.kernel.values.size(); ++i) {
      result.kernel.values[i] += epsilon() * result.filters.values[i];
    }
    result.noise = static_cast<double>(pool_.width()) * std::numeric_limits<double>::epsilon() *
                   forget_trace_ / epsilon();
    return result;
  }

  Directions leading(const SubspaceOptions& options, std::int64_t k) override {
    return leading_directions(forget_, retain_, options, k);
  }

  std::vector<double> division_values(const RowMask& mask, std::int64_t k) override {
    const double marked = std::accumulate(mask.begin(), mask.end(), 0.0);
    const double others = static_cast<double>(pool_.rows()) - marked;
    DistMatrix first = covariance_sum(forget_.grid(), pool_, mask, block_);
    // The second part is what remains of the sums that are already there.
    DistMatrix second = forget_;
    scale(second, static_cast<double>(pool_.forget_rows()));
    add(second, static_cast<double>(pool_.retain_rows()), retain_);
    add(second, -1, first);
    scale(second, 1 / others);
    scale(first, 1 / marked);
    shift_diagonal(second, ridge_ * trace(second));
    cholesky(second, "covariance of a random division");
    return top_pencil_values(std::move(first), second, k, "pencil of a random division");
  }

  Tall solve_retain(const Tall& q) override {
    DistMatrix x = scatter(forget_.grid(), q, block_);
    solve_lower(Op::none, factor(), x);
    solve_lower(Op::transposed, factor(), x);
    return gather(x);
  }

  Tall forget_form(const Tall& b) override { return cross(b, product(forget_, b)); }
  Tall retain_form(const Tall& b) override { return cross(b, product(retain_, b)); }

 private:
  double epsilon() const { return ridge_ * retain_trace_; }

  const DistMatrix& factor() {
    if (!factor_) {
      DistMatrix shifted = retain_;
      shift_diagonal(shifted, epsilon());
      cholesky(shifted, "regularised retain covariance");
      factor_ = std::move(shifted);
    }
    return *factor_;
  }

  const Pool& pool_;
  double ridge_;  // ε / tr(C_r)
  std::int64_t block_;
  DistMatrix forget_, retain_;
  std::optional<DistMatrix> factor_;  // of C_r + εI, made when first needed
};

}  // namespace

std::unique_ptr<Space> make_feature_space(const BlacsGrid& grid, const Pool& pool, double ridge) {
  return std::make_unique<FeatureSpace>(grid, pool, ridge);
}

}  // namespace mrp::solver
