#include "shard/evaluate/packed_plan.hpp"

namespace mrp::shard {

PackedPlan::PackedPlan(const io::Sequences& sequences, int data_ranks, std::int64_t batch_tokens)
    : sequences_(&sequences) {
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    spans_.push_back(up_to_last_target(sequences.tokens(i), sequences.mask(i)));
  }
  groups_ = prefix_groups(spans_);
  std::vector<std::int64_t> lengths;
  for (const PrefixGroup& group : groups_) lengths.push_back(group.length);
  plan_ = plan_batches(lengths, all_items(std::ssize(groups_)), data_ranks, batch_tokens);
}

std::span<const std::int64_t> PackedPlan::groups(int data_rank, std::int64_t round) const {
  return plan_.members(plan_.batch(data_rank, round));
}

std::vector<std::int64_t> PackedPlan::members(int data_rank, std::int64_t round) const {
  std::vector<std::int64_t> all;
  for (const std::int64_t g : groups(data_rank, round)) {
    const dist::Range members = groups_[static_cast<std::size_t>(g)].members;
    for (std::int64_t i = members.begin; i < members.end; ++i) all.push_back(i);
  }
  return all;
}

PackedBatch PackedPlan::batch(int data_rank, std::int64_t round) const {
  std::vector<TokenSpan> sequences;
  std::vector<PrefixGroup> chosen;
  for (const std::int64_t g : groups(data_rank, round)) {
    PrefixGroup group = groups_[static_cast<std::size_t>(g)];
    const auto begin = std::ssize(sequences);
    for (std::int64_t i = group.members.begin; i < group.members.end; ++i) {
      sequences.push_back(spans_[static_cast<std::size_t>(i)]);
    }
    group.members = {begin, std::ssize(sequences)};
    chosen.push_back(group);
  }
  return pack(sequences, chosen);
}

std::pair<std::int64_t, std::int64_t> PackedPlan::shape(int data_rank, std::int64_t round) const {
  std::vector<std::int64_t> lengths;
  for (const std::int64_t g : groups(data_rank, round)) {
    lengths.push_back(groups_[static_cast<std::size_t>(g)].length);
  }
  return {packed_rows(lengths), lengths.empty() ? 0 : lengths.back()};
}

std::int64_t PackedPlan::tokens(std::int64_t round) const {
  std::int64_t tokens = 0;
  for (std::size_t rank = 0; rank < plan_.batches.size(); ++rank) {
    for (const std::int64_t i : members(static_cast<int>(rank), round)) {
      tokens += sequences_->length(i);
    }
  }
  return tokens;
}

}  // namespace mrp::shard
