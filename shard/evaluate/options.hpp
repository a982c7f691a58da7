// Metrics that compare the options of an item. Nothing here communicates.
#pragma once

#include <vector>

#include "io/token_dataset.hpp"
#include "shard/evaluate.hpp"
#include "shard/evaluate/sequence_scores.hpp"

namespace mrp::shard {

/// Text and open choices, option and paraphrase probability and truth ratios of `items`, the items
/// of `set`, from the scores of its options.
void add_option_metrics(const io::TokenSet& set, const std::vector<SequenceScore>& scores,
                        std::vector<ItemMetrics>& items);

}  // namespace mrp::shard
