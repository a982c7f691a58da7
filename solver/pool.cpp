#include "solver/pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <unordered_map>

#include "dist/error.hpp"
#include "solver/random.hpp"

namespace mrp::solver {
namespace {

void check(const StateSource& source, const char* name) {
  if (source.rows() <= 0 || source.width() <= 0) {
    throw dist::InputError(fmt::format("there are no {} states: {} rows of width {}", name,
                                       source.rows(), source.width()));
  }
  if (static_cast<std::int64_t>(source.sequences().size()) != source.rows()) {
    throw dist::InputError(fmt::format("the {} states have {} rows but {} sequence numbers", name,
                                       source.rows(), source.sequences().size()));
  }
}

// Appends the source's sequences as consecutive numbers from `next`, in order of appearance.
std::int64_t number_sequences(const StateSource& source, std::int64_t next,
                              std::vector<std::int64_t>& out) {
  std::unordered_map<std::int64_t, std::int64_t> numbers;
  for (const std::int64_t sequence : source.sequences()) {
    const auto [entry, added] = numbers.try_emplace(sequence, next);
    if (added) ++next;
    out.push_back(entry->second);
  }
  return next;
}

}  // namespace

Pool::Pool(const StateSource& forget, const StateSource& retain)
    : forget_(forget), retain_(retain) {
  check(forget, "forget");
  check(retain, "retain");
  if (forget.width() != retain.width()) {
    throw dist::InputError(fmt::format("forget states have width {}, retain states {}",
                                       forget.width(), retain.width()));
  }
  sequences_.reserve(static_cast<std::size_t>(rows()));
  forget_sequences_ = number_sequences(forget, 0, sequences_);
  sequence_count_ = number_sequences(retain, forget_sequences_, sequences_);
}

void Pool::read(dist::Range rows, dist::Range columns, std::span<float> out) const {
  const std::int64_t border = forget_.rows();
  const std::int64_t split = std::clamp(border, rows.begin, rows.end);
  const auto first = static_cast<std::size_t>((split - rows.begin) * columns.size());
  if (split > rows.begin) forget_.read({rows.begin, split}, columns, out.first(first));
  if (split < rows.end) {
    retain_.read({split - border, rows.end - border}, columns, out.subspan(first));
  }
}

std::string Pool::describe_row(std::int64_t row) const {
  const bool forget = row < forget_.rows();
  const StateSource& source = forget ? forget_ : retain_;
  const std::int64_t local = forget ? row : row - forget_.rows();
  return fmt::format("row {} of the {} states (sequence {})", local, forget ? "forget" : "retain",
                     source.sequences()[static_cast<std::size_t>(local)]);
}

RowMask forget_mask(const Pool& pool) {
  RowMask mask(static_cast<std::size_t>(pool.rows()), 0);
  std::fill_n(mask.begin(), pool.forget_rows(), std::uint8_t{1});
  return mask;
}

RowMask retain_mask(const Pool& pool) {
  RowMask mask(static_cast<std::size_t>(pool.rows()), 1);
  std::fill_n(mask.begin(), pool.forget_rows(), std::uint8_t{0});
  return mask;
}

std::vector<std::int64_t> masked_rows(const RowMask& mask, bool value) {
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if ((mask[i] != 0) == value) rows.push_back(static_cast<std::int64_t>(i));
  }
  return rows;
}

RowMask random_division(const Pool& pool, std::uint64_t draw) {
  std::vector<std::int64_t> rows_of(static_cast<std::size_t>(pool.sequence_count()), 0);
  for (const std::int64_t sequence : pool.sequences())
    ++rows_of[static_cast<std::size_t>(sequence)];

  std::vector<std::uint8_t> marked(rows_of.size(), 0);
  std::int64_t missing = pool.forget_rows();  // rows that the marked part still lacks
  auto mark = [&](std::int64_t begin, std::int64_t end, std::int64_t target) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(end - begin));
    std::iota(order.begin(), order.end(), begin);
    shuffle(order, draw * 2 + (begin == 0 ? 0 : 1));
    for (const std::int64_t sequence : order) {
      const std::int64_t size = rows_of[static_cast<std::size_t>(sequence)];
      // Taken if that brings the part nearer to its target size.
      if (std::abs(target - size) >= std::abs(target)) continue;
      marked[static_cast<std::size_t>(sequence)] = 1;
      target -= size;
      missing -= size;
    }
  };
  const double share = static_cast<double>(pool.forget_rows()) / static_cast<double>(pool.rows());
  mark(0, pool.forget_sequences(),
       static_cast<std::int64_t>(share * static_cast<double>(pool.forget_rows())));
  mark(pool.forget_sequences(), pool.sequence_count(), missing);

  RowMask mask(static_cast<std::size_t>(pool.rows()), 0);
  for (std::size_t i = 0; i < mask.size(); ++i) {
    mask[i] = marked[static_cast<std::size_t>(pool.sequences()[i])];
  }
  return mask;
}

}  // namespace mrp::solver
