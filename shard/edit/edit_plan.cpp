#include "shard/edit/edit_plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "dist/error.hpp"
#include "shard/model/architecture.hpp"

namespace mrp::shard {

namespace {

bool along_columns(FoldSide side) {
  return side == FoldSide::output;
}

class Planner {
 public:
  Planner(const io::Checkpoint& checkpoint, const io::ModelConfig& config)
      : checkpoint_(checkpoint), config_(config), architecture_(find_architecture(config)) {}

  void add(const io::StoredSubspace& subspace);
  void add_delta(const std::string& tensor, const std::vector<std::int64_t>& shape);
  EditPlan finish();

 private:
  void add_writer(std::int64_t layer, std::string_view module, bool has_bias);
  void add_stream(const Site& site);
  void add_fold(const std::string& tensor, FoldSide side);
  void check_tensor(const std::string& tensor, FoldSide side) const;
  void check_type(const io::TensorInfo& info) const;
  bool embeddings_are_tied() const {
    return config_.tie_word_embeddings ||
           !checkpoint_.contains(fmt::format("{}.weight", architecture_.head));
  }

  const io::Checkpoint& checkpoint_;
  const io::ModelConfig& config_;
  const Architecture& architecture_;
  const io::StoredSubspace* subspace_ = nullptr;  ///< the one being added
  std::map<std::string, TensorEdit> edits_;
  std::vector<std::string> notes_;
};

void Planner::check_tensor(const std::string& tensor, FoldSide side) const {
  const io::TensorInfo& info = checkpoint_.info(tensor);
  const std::size_t dimensions = side == FoldSide::bias ? 1 : 2;
  const std::size_t axis = side == FoldSide::input || side == FoldSide::rows ? 1 : 0;
  if (info.shape.size() != dimensions || info.shape[axis] != subspace_->width) {
    throw dist::InputError(fmt::format(
        "{}: tensor {} has shape [{}], but the subspace of site {} has width {}; solve the sites "
        "on this checkpoint",
        checkpoint_.directory().string(), tensor, fmt::join(info.shape, ", "), subspace_->site,
        subspace_->width));
  }
  check_type(info);
}

void Planner::check_type(const io::TensorInfo& info) const {
  if (info.dtype == io::DType::bf16 || info.dtype == io::DType::f16 ||
      info.dtype == io::DType::f32) {
    return;
  }
  throw dist::InputError(fmt::format(
      "{}: tensor {} is {}; only BF16, F16 and F32 can be edited (requantised weights would undo "
      "it)",
      checkpoint_.directory().string(), info.name, io::dtype_name(info.dtype)));
}

void Planner::add_delta(const std::string& tensor, const std::vector<std::int64_t>& shape) {
  const io::TensorInfo& info = checkpoint_.info(tensor);
  if (info.shape != shape) {
    throw dist::InputError(fmt::format(
        "{}: tensor {} has shape [{}], but its trained change [{}]; refine this checkpoint",
        checkpoint_.directory().string(), tensor, fmt::join(info.shape, ", "),
        fmt::join(shape, ", ")));
  }
  check_type(info);
  edits_[tensor].delta = true;
}

void Planner::add_fold(const std::string& tensor, FoldSide side) {
  check_tensor(tensor, side);
  std::vector<Fold>& folds = edits_[tensor].folds;
  for (const Fold& other : folds) {
    if (along_columns(other.side) == along_columns(side)) {
      throw dist::UsageError(fmt::format(
          "sites {} and {} both project the same side of {}; two projectors one after the other "
          "do not keep both kernels: choose one of the sites",
          other.site, subspace_->site, tensor));
    }
  }
  folds.push_back({subspace_->site, side});
}

void Planner::add_writer(std::int64_t layer, std::string_view module, bool has_bias) {
  const std::string name = architecture_.in_layer(layer, module);
  add_fold(name + ".weight", FoldSide::output);
  // A bias that the configuration does not announce is projected as well: some loader may use it.
  if (has_bias || checkpoint_.contains(name + ".bias")) add_fold(name + ".bias", FoldSide::bias);
}

void Planner::add_stream(const Site& site) {
  if (embeddings_are_tied()) {
    throw dist::UsageError(fmt::format(
        "site {}: the embeddings of this model are tied to its head, so projecting them would "
        "change the logits; use o_proj.output and down_proj.output, or save the model with "
        "tie_word_embeddings = false first",
        subspace_->site));
  }
  add_fold(fmt::format("{}.weight", architecture_.embedding), FoldSide::rows);
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
    add_writer(layer, architecture_.o_proj, architecture_.o_bias(config_));
    add_writer(layer, architecture_.down_proj, architecture_.mlp_bias(config_));
  }
  notes_.push_back(fmt::format(
      "{}: folded into everything that writes to the residual stream (embeddings, every o_proj "
      "and down_proj), so the projection acts at every depth, not only after layer {}",
      subspace_->site, site.layer));
}

void Planner::add(const io::StoredSubspace& subspace) {
  const Site site = Site::parse(subspace.site);
  if (site.layer >= config_.layers || site.width(config_) != subspace.width) {
    throw dist::InputError(fmt::format(
        "site {} of width {} does not belong to this model ({} layers); solve the sites on this "
        "checkpoint",
        subspace.site, subspace.width, config_.layers));
  }
  if (subspace.k == 0) return;
  subspace_ = &subspace;
  const Architecture& names = architecture_;
  std::vector<std::string_view> readers;
  switch (site.module) {
    case SiteModule::stream:
      return add_stream(site);
    case SiteModule::qkv:
      readers = {names.q_proj, names.k_proj, names.v_proj};
      break;
    case SiteModule::gate_up:
      readers = {names.gate_proj, names.up_proj};
      break;
    case SiteModule::o_proj:
      readers = {names.o_proj};
      break;
    case SiteModule::down_proj:
      readers = {names.down_proj};
      break;
  }
  if (site.side == Side::input) {
    for (const std::string_view reader : readers) {
      add_fold(names.in_layer(site.layer, reader) + ".weight", FoldSide::input);
    }
  } else {
    const bool attention = site.module == SiteModule::o_proj;
    add_writer(site.layer, readers.front(),
               attention ? names.o_bias(config_) : names.mlp_bias(config_));
  }
}

EditPlan Planner::finish() {
  EditPlan plan;
  std::int64_t both = 0;
  for (auto& [tensor, edit] : edits_) {
    both += edit.folds.size() > 1 ? 1 : 0;
    edit.tensor = tensor;
    plan.edits.push_back(std::move(edit));
  }
  if (both > 0) {
    notes_.push_back(fmt::format(
        "{} tensors are folded on both sides: error feedback works along their input side, the "
        "output side keeps the leak of rounding to nearest (about 2e-3 in bf16)",
        both));
  }
  plan.notes = std::move(notes_);
  return plan;
}

const Fold* find_fold(const TensorEdit& edit, bool columns) {
  const auto found = std::find_if(edit.folds.begin(), edit.folds.end(), [&](const Fold& fold) {
    return along_columns(fold.side) == columns;
  });
  return found == edit.folds.end() ? nullptr : &*found;
}

}  // namespace

const Fold* row_fold(const TensorEdit& edit) {
  return find_fold(edit, false);
}
const Fold* column_fold(const TensorEdit& edit) {
  return find_fold(edit, true);
}
bool by_columns(const TensorEdit& edit) {
  return column_fold(edit) != nullptr && row_fold(edit) == nullptr;
}

EditPlan make_edit_plan(const io::Checkpoint& checkpoint, const io::ModelConfig& config,
                        const io::SubspaceFile& subspaces, const io::DeltaReader* deltas) {
  Planner planner(checkpoint, config);
  if (deltas != nullptr) {
    for (const auto& [tensor, shape] : deltas->layout().tensors) planner.add_delta(tensor, shape);
  }
  for (const auto& [name, subspace] : subspaces.sites) planner.add(subspace);
  return planner.finish();
}

}  // namespace mrp::shard
