// Which tensors a set of subspaces touches, on which side, and how exact the fold is.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/model_config.hpp"
#include "io/subspace_store.hpp"
#include "shard/site.hpp"

namespace mrp::shard {

/// W ← W P (input), W ← P W (output), rows of an embedding e ← P e (rows), bias ← P bias (bias).
enum class FoldSide { input, output, rows, bias };

struct Fold {
  std::string site;
  FoldSide side{};
};

struct TensorEdit {
  std::string tensor;
  std::vector<Fold> folds;  ///< applied in order; input and output of one matrix commute
};

/// A site of which nothing was found (k = 0) adds no edits.
struct EditPlan {
  std::vector<TensorEdit> edits;    ///< by tensor name
  std::vector<std::string> notes;   ///< what is not exact, in words for the log and the report
};

/// @throws InputError: a tensor of the plan is missing, has another shape than the subspace asks for, or a type that cannot be
/// edited; UsageError: two stream sites, or a stream fold of tied embeddings.
EditPlan make_edit_plan(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
                        const io::SubspaceFile& subspaces);

}  // namespace mrp::shard
