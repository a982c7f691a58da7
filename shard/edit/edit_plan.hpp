// Which tensors trained changes and a set of subspaces touch, on which side, and how exact it is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/delta_store.hpp"
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

/// First a trained change ΔW is added, if there is one, then come the folds: at most one works
/// along the rows of a tensor (input, rows, bias) and at most one along its columns (output). The
/// two commute.
struct TensorEdit {
  std::string tensor;
  std::vector<Fold> folds;
  bool delta = false;
};

/// A site of which nothing was found (k = 0) adds no edits.
struct EditPlan {
  std::vector<TensorEdit> edits;   ///< by tensor name
  std::vector<std::string> notes;  ///< what is not exact, in words for the log and the report
};

/// The fold of `edit` along rows or along columns, or null.
const Fold* row_fold(const TensorEdit& edit);
const Fold* column_fold(const TensorEdit& edit);
/// Whether the tensor is rewritten in slabs of columns: a fold along columns and none along rows.
/// Else it is rewritten in blocks of rows.
bool by_columns(const TensorEdit& edit);

/// `deltas` are the trained changes, null where nothing was trained. A change of embeddings that
/// are tied to the head is one of the head as well. Not collective.
/// @throws InputError: a tensor of the plan is missing, has another shape than the subspace or the
/// change asks for, or a type that cannot be edited; a site does not belong to this model.
/// UsageError: two sites that project the same side of a tensor (two streams, or a stream and an
/// output), because the product of two projectors does not keep both kernels; a stream fold of tied
/// embeddings.
EditPlan make_edit_plan(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
                        const io::SubspaceFile& subspaces, const io::DeltaReader* deltas = nullptr);

}  // namespace mrp::shard
