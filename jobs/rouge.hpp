// ROUGE-L of greedy continuations.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/token_dataset.hpp"
#include "jobs/stage_graph.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::jobs {

/// Collective over the world. Lets the model answer the prompt of every item of the sets in
/// `measured` (MEASURED by set), greedily, and adds "generated" (text), "rouge_l_recall" and
/// "rouge_l_f1" to the items on rank 0 (as jobs/py/rouge.py defines them). Items without a prompt,
/// such as plain text, are left out.
void add_rouge(const Job& job, const shard::CausalLM& model, const dist::ParallelLayout& layout,
               const io::TokenDataset& tokens, std::map<std::string, nlohmann::json>& measured);

}  // namespace mrp::jobs
