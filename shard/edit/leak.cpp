#include "shard/edit/leak.hpp"

#include <algorithm>

#include "dist/error.hpp"

namespace mrp::shard {

FoldPanel::FoldPanel(std::span<const double> matrix, std::int64_t width, std::int64_t k,
                     io::DType dtype) {
  if (dtype == io::DType::f32) {
    wide_ = Panel<double>(matrix, width, k);
  } else {
    single_ = Panel<float>(matrix, width, k);
  }
}

ProjectionMeter::ProjectionMeter(const FoldFactors& factors, Direction direction,
                                 std::int64_t columns, io::DType dtype)
    : direction_(direction),
      k_(factors.k),
      columns_(columns),
      panel_(factors.n, factors.width, factors.k, dtype) {
  const std::int64_t strips = direction == Direction::rows ? 1 : (columns + kLanes - 1) / kLanes;
  sums_.assign(static_cast<std::size_t>(strips * k_), Lanes<double>{});
}

template <class Real>
void ProjectionMeter::add(std::int64_t first, const MatrixBytes& block) {
  Tile<Real> tile;
  const Panel<Real>& panel = panel_.get<Real>();
  const std::span<Lanes<double>> sums(sums_);
  if (direction_ == Direction::rows) {
    for (std::int64_t row = 0; row < block.rows; row += kLanes) {
      load_rows(block, row, tile);
      std::fill(sums.begin(), sums.end(), Lanes<double>{});
      project<Real>(panel, 0, tile, sums);
      row_total_ += mrp::shard::squared_norm(sums);
    }
    return;
  }
  const auto k = static_cast<std::size_t>(k_);
  std::size_t strip = 0;
  for (std::int64_t column = 0; column < columns_; column += kLanes) {
    load_columns(block, column, tile);
    // Blocks are cut at multiples of kLanes: sums over kLanes rows do not depend on where.
    project<Real>(panel, first, tile, sums.subspan(strip, k), kLanes);
    strip += k;
  }
}

void ProjectionMeter::add_rows(std::int64_t first, const MatrixBytes& block) {
  MRP_EXPECT(block.columns == columns_ && first % kLanes == 0);
  with_real(block.dtype, [&](auto real) { add<decltype(real)>(first, block); });
}

double ProjectionMeter::squared_norm() const {
  return direction_ == Direction::rows ? row_total_ : mrp::shard::squared_norm(sums_);
}

std::vector<double> ProjectionMeter::products() const {
  MRP_EXPECT(direction_ == Direction::columns);
  std::vector<double> result(static_cast<std::size_t>(k_ * columns_));
  for (std::int64_t i = 0; i < k_; ++i) {
    for (std::int64_t j = 0; j < columns_; ++j) {
      const auto& lanes = sums_[static_cast<std::size_t>(j / kLanes * k_ + i)];
      result[static_cast<std::size_t>(i * columns_ + j)] = lanes.v[j % kLanes];
    }
  }
  return result;
}

}  // namespace mrp::shard
