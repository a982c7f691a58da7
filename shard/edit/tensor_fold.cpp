#include "shard/edit/tensor_fold.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "dist/error.hpp"
#include "io/hash.hpp"

namespace mrp::shard {

namespace {

FoldFactors factors_of(const Fold& fold, const io::SubspaceFile& subspaces) {
  return make_factors(subspaces.sites.at(fold.site), fold.side);
}

/// The largest magnitude that a value may have and still be stored.
double largest(io::DType dtype) {
  switch (dtype) {
    case io::DType::f16:
      return 65504.0;
    case io::DType::bf16:
      return io::bf16_to_float(0x7f7f);
    default:
      return std::numeric_limits<float>::max();
  }
}

/// Tensors of the same shape are not rounded alike.
std::uint32_t seed_of(const std::string& name) {
  return static_cast<std::uint32_t>(std::stoul(io::xxh3_128(name).substr(0, 8), nullptr, 16));
}

}  // namespace

MatrixShape matrix_shape(const io::TensorInfo& info) {
  MRP_EXPECT(info.shape.size() == 1 || info.shape.size() == 2);
  return info.shape.size() == 1 ? MatrixShape{1, info.shape[0]}
                                : MatrixShape{info.shape[0], info.shape[1]};
}

TensorFold::TensorFold(const io::TensorInfo& info, const TensorEdit& edit,
                       const io::SubspaceFile& subspaces, Rounding rounding)
    : name_(info.name),
      dtype_(info.dtype),
      shape_(matrix_shape(info)),
      // f32 is rounded to nearest: its leak is 1e-7 anyway.
      rounding_(dtype_ == io::DType::f32 ? Rounding::nearest : rounding) {
  const auto make_side = [&](const Fold* fold) -> std::optional<Side> {
    if (fold == nullptr) return {};
    FoldFactors f = factors_of(*fold, subspaces);
    FoldPanel n(f.n, f.width, f.k, dtype_), m(f.m, f.width, f.k, dtype_);
    return Side{std::move(f), std::move(n), std::move(m)};
  };
  row_ = make_side(row_fold(edit));
  column_ = make_side(column_fold(edit));
  if (rounding_ == Rounding::error_feedback) {
    if (row_ || column_) feedback_.emplace((row_ ? row_ : column_)->factors, dtype_);
    seed_ = seed_of(name_);
  }
  if (needs_observation()) {
    observed_.emplace(column_->factors, ProjectionMeter::Direction::columns, shape_.columns,
                      dtype_);
  }
}

void TensorFold::observe(std::int64_t first_row, const MatrixBytes& block) {
  MRP_EXPECT(observed_.has_value());
  observed_->add_rows(first_row, block);
}

/// W₂ = W P_in − M Nᵀ W P_in: with T = Nᵀ W known, blocks of rows are independent again.
void TensorFold::finish_observation() {
  std::vector<double> t = observed_->products();
  column_norm_ = observed_->squared_norm();
  observed_.reset();
  const auto columns = static_cast<std::size_t>(shape_.columns);
  const auto k = static_cast<std::size_t>(column_->factors.k);
  const auto row_k = static_cast<std::size_t>(row_->factors.k);
  std::vector<double> transposed(columns * k);
  for (std::size_t i = 0; i < k; ++i) {
    std::vector<double> c(row_k, 0.0);
    for (std::size_t j = 0; j < columns; ++j) {
      for (std::size_t l = 0; l < row_k; ++l) {
        c[l] += t[i * columns + j] * row_->factors.n[j * row_k + l];
      }
    }
    for (std::size_t j = 0; j < columns; ++j) {
      double x = t[i * columns + j];
      for (std::size_t l = 0; l < row_k; ++l) x -= c[l] * row_->factors.m[j * row_k + l];
      transposed[j * k + i] = x;
    }
  }
  column_products_ = FoldPanel(transposed, shape_.columns, column_->factors.k, dtype_);
}

template <class Real>
void TensorFold::subtract_columns(std::int64_t row, std::int64_t used, Tile<Real>& tile) const {
  const FoldFactors& factors = column_->factors;
  std::vector<Lanes<double>> m(static_cast<std::size_t>(factors.k), Lanes<double>{});
  for (std::int64_t i = 0; i < factors.k; ++i) {
    for (std::int64_t lane = 0; lane < used; ++lane) {
      m[static_cast<std::size_t>(i)].v[lane] =
          factors.m[static_cast<std::size_t>((row + lane) * factors.k + i)];
    }
  }
  subtract<Real>(column_products_.get<Real>(), m, tile);
}

void TensorFold::round(std::int64_t first, bool changed, Tile<float>& tile,
                       std::span<const Lanes<double>> removed) {
  if (rounding_ == Rounding::nearest) return;  // storing does it
  if (!changed) return feedback_->round(tile, removed);
  Tile<float> chosen = tile;
  round_at_random(chosen, first, seed_, dtype_);
  if (feedback_) {
    feedback_->round_from(chosen, tile, removed);
  } else {
    tile = std::move(chosen);
  }
}

template <class Real>
double TensorFold::fold_tiles(std::int64_t first, const MatrixBytes& block) {
  const bool columns = by_columns();
  const Side* side = columns ? &*column_ : row_ ? &*row_ : nullptr;
  const std::int64_t count = columns ? block.columns : block.rows;
  std::vector<Lanes<double>> sums(static_cast<std::size_t>(side != nullptr ? side->factors.k : 0));
  Tile<Real> tile;
  double removed = 0;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    columns ? load_columns(block, i, tile) : load_rows(block, i, tile);
    if (side != nullptr) {
      std::fill(sums.begin(), sums.end(), Lanes<double>{});
      project<Real>(side->n.get<Real>(), 0, tile, sums);
      removed += squared_norm(sums);
      subtract<Real>(side->m.get<Real>(), sums, tile);
    }
    if (!columns && column_) subtract_columns(first + i, std::min(kLanes, count - i), tile);
    // NaN and Inf of the input spread over their row or column and are found here as well.
    if (!all_within<Real>(tile, static_cast<Real>(largest(dtype_)))) report(first, block);
    if constexpr (std::is_same_v<Real, float>) round(first + i, !block.delta.empty(), tile, sums);
    columns ? store_columns(tile, i, block) : store_rows(tile, i, block);
  }
  return removed;
}

SquaredNorms TensorFold::fold(std::int64_t first, const MatrixBytes& block) {
  MRP_EXPECT(first % kLanes == 0 && block.dtype == dtype_);
  MRP_EXPECT(by_columns() ? block.rows == shape_.rows : block.columns == shape_.columns);
  if (observed_) finish_observation();
  const double removed =
      with_real(dtype_, [&](auto real) { return fold_tiles<decltype(real)>(first, block); });
  if (by_columns()) return {0, removed};
  return {removed, first == 0 ? column_norm_ : 0};
}

void TensorFold::report(std::int64_t first, const MatrixBytes& block) const {
  const std::int64_t first_row = by_columns() ? 0 : first;
  std::vector<float> row(static_cast<std::size_t>(block.columns));
  const std::size_t bytes = row.size() * static_cast<std::size_t>(io::dtype_bits(dtype_)) / 8;
  for (std::int64_t i = 0; i < block.rows; ++i) {
    io::to_float(dtype_, block.bytes.subspan(static_cast<std::size_t>(i) * bytes, bytes), row);
    if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
      throw dist::NumericalError(
          fmt::format("tensor {}, row {}: NaN or Inf in the weights; repair the checkpoint first",
                      name_, first_row + i));
    }
  }
  throw dist::NumericalError(fmt::format(
      "tensor {}, rows {} to {}: the edited weights are larger than {} can hold; {}", name_,
      first_row, first_row + block.rows - 1, io::dtype_name(dtype_),
      row_ || column_ ? "solve the site with fewer directions or an orthogonal projector"
                      : "refine with a lower learning rate"));
}

LeakMeter::LeakMeter(const io::TensorInfo& info, const TensorEdit& edit,
                     const io::SubspaceFile& subspaces) {
  using Direction = ProjectionMeter::Direction;
  const std::int64_t columns = matrix_shape(info).columns;
  if (const Fold* fold = row_fold(edit)) {
    rows_.emplace(factors_of(*fold, subspaces), Direction::rows, columns, info.dtype);
  }
  if (const Fold* fold = column_fold(edit)) {
    columns_.emplace(factors_of(*fold, subspaces), Direction::columns, columns, info.dtype);
  }
}

void LeakMeter::add_rows(std::int64_t first, const MatrixBytes& block) {
  if (rows_) rows_->add_rows(first, block);
  if (columns_) columns_->add_rows(first, block);
}

SquaredNorms LeakMeter::norms() const {
  return {rows_ ? rows_->squared_norm() : 0, columns_ ? columns_->squared_norm() : 0};
}

double leak(const SquaredNorms& before, const SquaredNorms& after) {
  const auto ratio = [](double b, double a) { return b > 0 ? std::sqrt(a / b) : 0.0; };
  return std::max(ratio(before.rows, after.rows), ratio(before.columns, after.columns));
}

}  // namespace mrp::shard
