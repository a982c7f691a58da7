// What is trained of a model: each weight becomes a function of a few leaves, fp32 and, unless they
// are shrunk, zero-change at the start.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shard/model/causal_lm.hpp"

namespace mrp::shard {

enum class TrainForm {
  subspace,     ///< W = W₀ + T M Sᵀ, S and T from moments of states and gradients; M is trained
  projections,  ///< W = W₀ P or P W₀, P = I − Q Qᵀ with Q = orth(A); A is trained
  lora,         ///< W = W₀ + (α / r) B A (arXiv 2106.09685)
  weights       ///< W itself
};

/// I − U diag(damping) Uᵀ, symmetric: small along what is used. As S of a site along what the
/// retain states use, of a split site for each rank's own slice.
struct Confinement {
  torch::Tensor u;        ///< fp32 [local width × r], orthonormal columns
  torch::Tensor damping;  ///< fp32 [r], 1 − √(ε / (λ + ε))
};

/// P = I − A Bᵀ, fp32 [local width × columns] both. Of a split site each rank has its own rows.
struct Projector {
  torch::Tensor a, b;

  /// P x of columns, of each rank's own P.
  torch::Tensor apply(const torch::Tensor& x) const;
  Projector transposed() const { return {b, a}; }
};

struct TrainableOptions {
  TrainForm form = TrainForm::subspace;
  std::map<Site, Confinement> confinement;  ///< sites without one are not confined
  /// With `subspace`: T, by name of the weight, one for each of its blocks of rows: small along
  /// what the predictions hang on. Weights without one have T = I.
  std::map<std::string, std::vector<Confinement>> outputs;
  /// With `subspace`: S [local width × k] itself where M shall have k columns only (low form), fp32
  /// with orthonormal columns, instead of a confinement. Of a split site each rank has its own
  /// block.
  std::map<Site, torch::Tensor> bases;
  /// With `subspace`: M starts at −shrink W₀ S. 1: nothing is left of what the retain states hardly
  /// use, W = W₀ (I − S²) where T = I, and training brings back what is missed.
  double shrink = 0;
  /// Constant projectors that stay in the graph: W P. Of a split site, one over all ranks.
  std::map<Site, Projector> projectors;
  /// With `projections`: A to start from, fp32 [local width × k], by site, input or output side. Of
  /// a split site each rank has its own block.
  std::map<Site, torch::Tensor> projections;
  /// Columns of a projector that grows while training goes on, zero at the start: W P of every
  /// weight that reads a site, of a split site by each rank's own. Not with `projections`.
  std::int64_t kernel = 0;
  std::vector<SiteModule> modules;  ///< linear layers by the site they read; empty: all
  bool everything = false;          ///< with `weights`: embedding, norms, head and biases too
  std::int64_t rank = 16;           ///< of LoRA
  double lora_scale = 2.0;          ///< α / r
  std::uint64_t seed = 0;
};

/// A tensor that is trained. All ranks of a tensor group have the same `replicated` leaves.
struct Leaf {
  torch::Tensor value;        ///< fp32, requires a gradient
  bool replicated = false;    ///< counts once in norms over the tensor ranks
  bool partial = false;       ///< each rank's gradient is a part: the sum is meant
  dist::Range shared_rows{};  ///< held by `sharers` ranks: count once in norms
  int sharers = 1;
};

/// Collective over the tensor ranks. Completes the gradient of the rows that ranks share.
void share_gradient(const Parameter& parameter);

/// Takes over the weights of a model until it is destroyed, which puts the base weights back.
class Trainable {
 public:
  /// Not collective. Keeps the base weights in the type in which they are.
  Trainable(CausalLM& model, const TrainableOptions& options);
  ~Trainable();
  Trainable(const Trainable&) = delete;
  Trainable& operator=(const Trainable&) = delete;

  CausalLM& model() { return *model_; }
  std::vector<Leaf>& leaves() { return leaves_; }
  std::int64_t count() const;  ///< numbers that this rank trains

  /// Collective over the tensor ranks. Puts the weights of the present leaves into the model; they
  /// gather gradients.
  void apply();
  /// Puts the base weights into the model, which gather none.
  void apply_base();
  /// Runs `f` with the base weights, then puts the present ones back.
  void with_base(const std::function<void()>& f);
  /// Collective over the tensor ranks. Moves the gradients that the weights have gathered into
  /// fp32 sums.
  void collect();
  /// Collective over the tensor ranks. Adds the gradients that follow from those sums to the
  /// leaves, whose grad() must be defined, and clears the sums: once a step, after all `collect`.
  void finish_gradients();

  /// P of every site whose kernel grows, as far as it has; to save and restore too.
  const std::map<Site, Projector>& grown() const { return grown_; }
  /// P becomes (I − A (VᵀA)⁻¹ Vᵀ) P with A = P a and V = b of these [local width × k], unit
  /// columns, in columns round · k and on: what P takes away is taken away still, and adds nothing
  /// where it is named again. Not collective.
  void grow(const std::map<Site, Projector>& added, std::int64_t round);

  /// The weights that `apply` put into the model, fit to be moved by a simulated attack.
  std::vector<torch::Tensor> applied() const;
  /// Collective over the tensor ranks. Completes the gradients of rows that ranks share.
  void share_gradients();

  /// What is trained, as the model names it.
  std::vector<Parameter> parameters() const;
  /// Collective over the tensor ranks. Calls visit(parameter, W − W₀ fp32) for each weight that is
  /// trained.
  void visit_changes(const std::function<void(const Parameter&, const torch::Tensor&)>& visit);

 private:
  struct Weight {
    Parameter parameter;
    torch::Tensor base;
    torch::Tensor gradient;           ///< fp32 sum, or undefined
    std::vector<std::size_t> leaves;  ///< indices
    std::function<torch::Tensor(const torch::Tensor& base, std::span<const torch::Tensor>)> value;
  };
  void add_linear(const Parameter& parameter, const TrainableOptions& options);
  void add_subspace(Weight& weight, const TrainableOptions& options);
  /// False if no projection acts on the weight.
  bool add_projections(Weight& weight, const TrainableOptions& options);
  void add_leaf(Weight& weight, torch::Tensor initial, bool replicated, bool partial);
  /// The weight becomes W P, of A and B as they are when it is computed; with `ranks`,
  /// which hold columns of W and the same rows of A and B, of all of these together.
  static void project(Weight& weight, const Projector& projector, const TensorCollectives* ranks);
  torch::Tensor evaluate(const Weight& weight) const;

  CausalLM* model_;
  std::vector<Leaf> leaves_;
  std::vector<Weight> weights_;
  std::map<Site, Projector> grown_;
};

}  // namespace mrp::shard
