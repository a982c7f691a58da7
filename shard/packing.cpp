#include "shard/packing.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

namespace mrp::shard {
namespace {

/// A group takes at most so many times the slots of its longest sequence: attention grows with the
/// square.
constexpr std::int64_t kMostLengths = 4;

std::int64_t common_prefix(TokenSpan a, TokenSpan b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

/// Row of each group: the first in which it fits, the longest group first.
struct Rows {
  std::vector<std::int64_t> row, begin;  // of each group
  std::vector<std::int64_t> filled;      // of each row
  std::int64_t length = 0;
};

Rows fill_rows(std::span<const std::int64_t> lengths) {
  Rows rows;
  rows.row.resize(lengths.size());
  rows.begin.resize(lengths.size());
  if (!lengths.empty()) rows.length = std::ranges::max(lengths);
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](std::size_t g) { return lengths[g]; });
  for (const std::size_t g : order) {
    const auto fits = std::ranges::find_if(
        rows.filled, [&](std::int64_t filled) { return filled + lengths[g] <= rows.length; });
    rows.row[g] = fits - rows.filled.begin();
    if (fits == rows.filled.end()) {
      rows.filled.push_back(lengths[g]);
    } else {
      rows.begin[g] = *fits;
      *fits += lengths[g];
    }
  }
  return rows;
}

/// Writes groups into a batch, slot by slot.
class Writer {
 public:
  Writer(PackedBatch& batch, std::int64_t rows, std::int64_t length)
      : batch_(&batch), length_(length) {
    batch.tokens = torch::zeros({rows, length}, torch::kInt64);
    batch.positions = torch::zeros({rows, length}, torch::kInt64);
    batch.seen = torch::zeros({rows, length, 3}, torch::kInt32);
    auto* seen = batch.seen.data_ptr<std::int32_t>();
    // Padding sees itself: over no slot at all the softmax is NaN.
    for (std::int64_t s = 0; s < rows * length; ++s) {
      seen[3 * s + 2] = static_cast<std::int32_t>(s % length);
    }
  }

  /// `at`: slot of the first token.
  void write(std::span<const TokenSpan> members, std::int64_t prefix, std::int64_t at) {
    const std::int64_t root = at % length_;
    for (std::int64_t t = 0; t < prefix; ++t) {
      write(at + t, members.front()[static_cast<std::size_t>(t)], t, {root, root, root});
    }
    std::int64_t rest = at + prefix;
    for (const TokenSpan tokens : members) {
      batch_->places.push_back({at, rest, prefix});
      const std::int64_t begin = rest % length_;
      for (std::int64_t t = prefix; t < std::ssize(tokens); ++t, ++rest) {
        write(rest, tokens[static_cast<std::size_t>(t)], t, {root, root + prefix, begin});
      }
    }
  }

 private:
  void write(std::int64_t slot, std::int32_t token, std::int64_t position,
             const std::array<std::int64_t, 3>& seen) {
    batch_->tokens.data_ptr<std::int64_t>()[slot] = token;
    batch_->positions.data_ptr<std::int64_t>()[slot] = position;
    std::ranges::transform(seen, batch_->seen.data_ptr<std::int32_t>() + 3 * slot,
                           [](std::int64_t s) { return static_cast<std::int32_t>(s); });
  }

  PackedBatch* batch_;
  std::int64_t length_;
};

}  // namespace

TokenSpan up_to_last_target(TokenSpan tokens, std::span<const std::uint8_t> mask) {
  const auto behind = std::find(mask.rbegin(), mask.rend(), std::uint8_t{1}).base();
  return tokens.first(std::max<std::size_t>(static_cast<std::size_t>(behind - mask.begin()), 1));
}

std::vector<PrefixGroup> prefix_groups(std::span<const TokenSpan> sequences) {
  std::vector<PrefixGroup> groups;
  std::int64_t longest = 0, sum = 0;  // of the members of the last group
  for (std::int64_t i = 0; i < std::ssize(sequences); ++i) {
    const TokenSpan tokens = sequences[static_cast<std::size_t>(i)];
    const std::int64_t own = std::ssize(tokens);
    if (!groups.empty()) {
      PrefixGroup& group = groups.back();
      const TokenSpan first = sequences[static_cast<std::size_t>(group.members.begin)];
      const std::int64_t prefix = std::min(group.prefix, common_prefix(first, tokens));
      const std::int64_t length = sum + own - group.members.size() * prefix;
      if (3 * (group.length + own - length) >= own &&
          length <= kMostLengths * std::max(longest, own)) {
        group = {{group.members.begin, i + 1}, prefix, length};
        longest = std::max(longest, own);
        sum += own;
        continue;
      }
    }
    groups.push_back({{i, i + 1}, own, own});
    longest = sum = own;
  }
  return groups;
}

std::int64_t PackedBatch::slot(std::int64_t i, std::int64_t t) const {
  const Place& place = places[static_cast<std::size_t>(i)];
  return t < place.prefix_length ? place.prefix + t : place.rest + t - place.prefix_length;
}

PackedBatch pack(std::span<const TokenSpan> sequences, std::span<const PrefixGroup> groups) {
  std::vector<std::int64_t> lengths;
  for (const PrefixGroup& group : groups) lengths.push_back(group.length);
  const Rows rows = fill_rows(lengths);
  PackedBatch batch;
  Writer writer(batch, std::ssize(rows.filled), rows.length);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto members = sequences.subspan(static_cast<std::size_t>(groups[g].members.begin),
                                           static_cast<std::size_t>(groups[g].members.size()));
    writer.write(members, groups[g].prefix, rows.row[g] * rows.length + rows.begin[g]);
  }
  for (const TokenSpan tokens : sequences) {
    batch.longest = std::max<std::int64_t>(batch.longest, std::ssize(tokens));
  }
  if (sequences.size() == rows.filled.size()) batch.positions = batch.seen = torch::Tensor();
  return batch;
}

PackedBatch pack(std::span<const TokenSpan> sequences) {
  return pack(sequences, prefix_groups(sequences));
}

std::int64_t packed_rows(std::span<const std::int64_t> lengths) {
  return std::ssize(fill_rows(lengths).filled);
}

torch::Tensor seen_mask(const torch::Tensor& seen) {
  const auto ranges = seen.unsqueeze(1).unbind(-1);  // each [rows × 1 × length]
  const torch::Tensor slots = torch::arange(seen.size(1), seen.options());
  const auto bound = [&](std::size_t i) { return ranges[i].unsqueeze(-1); };
  return ((slots >= bound(0)) & (slots < bound(1))) |
         ((slots >= bound(2)) & (slots <= slots.unsqueeze(1)));
}

}  // namespace mrp::shard
