#include "shard/train/trainable.hpp"

#include <cmath>
#include <utility>

#include <torch/autograd.h>
#include <torch/utils.h>

#include "dist/error.hpp"
#include "io/hash.hpp"
#include "shard/train/replaced_weights.hpp"

namespace mrp::shard {
namespace {

using Leaves = std::span<const torch::Tensor>;

/// S, to be applied in each step: as one matrix where that is cheaper than by its factors.
class Confiner {
 public:
  explicit Confiner(const Confinement& s) : s_(s) {
    const std::int64_t width = s.u.size(0);
    if (2 * s.u.size(1) <= width) return;
    whole_ = torch::eye(width, s.u.options()) - torch::matmul(s.u * s.damping, s.u.t());
    s_ = {};
  }
  /// x S for rows x.
  torch::Tensor operator()(const torch::Tensor& x) const {
    if (whole_.defined()) return torch::matmul(x, whole_);
    return x - torch::matmul(torch::matmul(x, s_.u) * s_.damping, s_.u.t());
  }
  std::int64_t width() const { return whole_.defined() ? whole_.size(0) : s_.u.size(0); }

 private:
  torch::Tensor whole_;
  Confinement s_;
};

/// T X, each block of rows confined by its own.
torch::Tensor confine_rows(const torch::Tensor& x, const std::vector<Confiner>& blocks) {
  std::vector<torch::Tensor> parts;
  std::int64_t begin = 0;
  for (const Confiner& t : blocks) {
    parts.push_back(t(x.narrow(0, begin, t.width()).t()).t());
    begin += t.width();
  }
  return torch::cat(parts);
}

/// Normal numbers that depend on the seed and the name only, so that ranks agree.
torch::Tensor random_matrix(std::int64_t rows, std::int64_t columns, double scale,
                            std::uint64_t seed, const std::string& name) {
  const std::string hash = io::xxh3_128(name);
  at::Generator generator =
      at::detail::createCPUGenerator(seed ^ std::stoull(hash.substr(0, 16), nullptr, 16));
  return torch::randn({rows, columns}, generator, torch::kFloat32) * scale;
}

/// W (I − A (AᵀA)⁻¹ Aᵀ)
torch::Tensor project_out(const torch::Tensor& w, const torch::Tensor& a) {
  const torch::Tensor gram = torch::matmul(a.t(), a);
  return w - torch::matmul(torch::linalg_solve(gram, torch::matmul(w, a).t()).t(), a.t());
}

bool selected(const Parameter& parameter, const TrainableOptions& options) {
  return parameter.input ? reads_one_of(parameter, options.modules) : options.everything;
}

}  // namespace

void share_gradient(const Parameter& parameter) {
  if (parameter.sharers == nullptr || !parameter.value->grad().defined()) return;
  torch::Tensor shared =
      parameter.value->grad().narrow(0, parameter.shared_rows.begin, parameter.shared_rows.size());
  shared.copy_(parameter.sharers->all_reduce(shared.clone()));
}

Trainable::Trainable(CausalLM& model, const TrainableOptions& options) : model_(&model) {
  MRP_EXPECT(!options.everything || options.form == TrainForm::weights);
  MRP_EXPECT(options.kernel == 0 || options.form != TrainForm::projections);
  for (const Parameter& parameter : model.parameters()) {
    if (!selected(parameter, options)) continue;
    if (parameter.input) {
      add_linear(parameter, options);
      continue;
    }
    Weight weight{parameter, *parameter.value, {}, {}, {}};
    weight.value = [](const torch::Tensor&, Leaves leaves) { return leaves[0]; };
    const WeightBlock& block = parameter.blocks.front();
    const bool whole = block.rows.size() == block.height && block.columns.size() == block.width;
    add_leaf(weight, weight.base.to(torch::kFloat32, false, /*copy=*/true), whole, false);
    weights_.push_back(std::move(weight));
  }
}

Trainable::~Trainable() {
  apply_base();
}

void Trainable::add_leaf(Weight& weight, torch::Tensor initial, bool replicated, bool partial) {
  const torch::Tensor value = initial.to(model_->options().device).requires_grad_();
  weight.leaves.push_back(leaves_.size());
  leaves_.push_back({value, replicated, partial});
  // Any other leaf has the rows of its weight.
  if (replicated || partial || weight.parameter.sharers == nullptr) return;
  leaves_.back().shared_rows = weight.parameter.shared_rows;
  leaves_.back().sharers = weight.parameter.sharers->size();
}

void Trainable::add_linear(const Parameter& parameter, const TrainableOptions& options) {
  Weight weight{parameter, *parameter.value, {}, {}, {}};
  const Site site = *parameter.input;
  const bool rows_split = !site.is_split();  // column-parallel layers
  const std::int64_t outputs = weight.base.size(0), inputs = weight.base.size(1);
  const auto confinement = options.confinement.find(site);
  const bool confined = confinement != options.confinement.end();
  // Ranks of a split site draw their own columns.
  const std::string own = site.is_split()
                              ? parameter.name + std::to_string(model_->collectives().rank())
                              : parameter.name;
  switch (options.form) {
    case TrainForm::subspace:
      add_subspace(weight, options);
      break;
    case TrainForm::projections:
      if (!add_projections(weight, options)) return;
      break;
    case TrainForm::lora: {
      add_leaf(
          weight,
          random_matrix(options.rank, inputs, 1.0 / std::sqrt(double(inputs)), options.seed, own),
          rows_split, rows_split);
      add_leaf(weight, torch::zeros({outputs, options.rank}), !rows_split, !rows_split);
      const auto s = confined ? std::optional<Confiner>(confinement->second) : std::nullopt;
      weight.value = [s, scale = options.lora_scale](const torch::Tensor& w, Leaves leaves) {
        const torch::Tensor a = s ? (*s)(leaves[0]) : leaves[0];
        return w + torch::matmul(leaves[1], a) * scale;
      };
      break;
    }
    case TrainForm::weights:
      add_leaf(weight, weight.base.to(torch::kFloat32, false, /*copy=*/true), false, false);
      weight.value = [](const torch::Tensor&, Leaves leaves) { return leaves[0]; };
      break;
  }
  if (const auto kept = options.projectors.find(site); kept != options.projectors.end()) {
    const TensorCollectives* ranks = site.is_split() ? &model_->collectives() : nullptr;
    project(weight, kept->second, ranks);
  }
  if (options.kernel > 0) {
    const auto zero = torch::zeros({inputs, options.kernel}, model_->options().device);
    project(weight, grown_.try_emplace(site, Projector{zero, zero.clone()}).first->second, nullptr);
  }
  weights_.push_back(std::move(weight));
}

void Trainable::project(Weight& weight, const Projector& projector,
                        const TensorCollectives* ranks) {
  weight.value = [inner = weight.value, p = projector, ranks](const torch::Tensor& w,
                                                              Leaves leaves) {
    const torch::Tensor x = inner(w, leaves);
    torch::Tensor along = torch::matmul(x, p.a);
    if (ranks) along = copy_to_ranks(reduce_from_ranks(along, *ranks), *ranks);
    return x - torch::matmul(along, p.b.t());
  };
}

torch::Tensor Projector::apply(const torch::Tensor& x) const {
  return x - torch::matmul(a, torch::matmul(b.t(), x));
}

void Trainable::grow(const std::map<Site, Projector>& added, std::int64_t round) {
  constexpr double kGone = 1e-4;  // of unit vectors; what P has taken away comes to some 1e-7
  const torch::NoGradGuard no_grad;
  for (auto& [site, grown] : grown_) {
    const auto& [patterns, v] = added.at(site);
    const torch::Tensor a = grown.apply(patterns), left = grown.transposed().apply(v);
    const torch::Tensor inverse =
        torch::linalg_pinv(torch::matmul(left.t(), a), std::optional(kGone), std::nullopt);
    const torch::Tensor b = torch::matmul(left, inverse.t());
    const std::int64_t k = a.size(1);
    grown.a.narrow(1, round * k, k).copy_(a);
    grown.b.narrow(1, round * k, k).copy_(b);
  }
}

void Trainable::add_subspace(Weight& weight, const TrainableOptions& options) {
  const Site site = *weight.parameter.input;
  const torch::Tensor start = -options.shrink * weight.base.to(torch::kFloat32);
  std::function<torch::Tensor(const torch::Tensor&)> times_s;
  if (const auto basis = options.bases.find(site); basis != options.bases.end()) {
    add_leaf(weight, torch::matmul(start, basis->second), false, false);
    times_s = [s = basis->second](const torch::Tensor& m) { return torch::matmul(m, s.t()); };
  } else {
    const auto soft = options.confinement.find(site);
    MRP_EXPECT(soft != options.confinement.end(), "no confinement for " + site.name());
    times_s = Confiner(soft->second);
    add_leaf(weight, times_s(start), false, false);
  }
  const auto t = options.outputs.find(weight.parameter.name);
  if (t == options.outputs.end()) {
    weight.value = [times_s](const torch::Tensor& w, Leaves leaves) {
      return w + times_s(leaves[0]);
    };
  } else {
    const std::vector<Confiner> blocks(t->second.begin(), t->second.end());
    weight.value = [times_s, t = blocks](const torch::Tensor& w, Leaves leaves) {
      return w + confine_rows(times_s(leaves[0]), t);
    };
  }
}

bool Trainable::add_projections(Weight& weight, const TrainableOptions& options) {
  const Site input = *weight.parameter.input;
  const Site output{input.layer, input.module, Side::output};
  weight.value = [](const torch::Tensor& w, Leaves) { return w.to(torch::kFloat32); };
  if (const auto found = options.projections.find(input); found != options.projections.end()) {
    // What is complete on every rank reads it with a part of the rows on each.
    const bool complete = !input.is_split();
    add_leaf(weight, found->second.clone(), complete, complete);
    weight.value = [](const torch::Tensor& w, Leaves leaves) {
      return project_out(w.to(torch::kFloat32), leaves[0]);
    };
  }
  if (const auto found = options.projections.find(output); found != options.projections.end()) {
    add_leaf(weight, found->second.clone(), true, true);
    weight.value = [inner = weight.value](const torch::Tensor& w, Leaves leaves) {
      return project_out(inner(w, leaves).t(), leaves.back()).t();
    };
  }
  return !weight.leaves.empty();
}

std::int64_t Trainable::count() const {
  std::int64_t total = 0;
  for (const Leaf& leaf : leaves_) total += leaf.value.numel();
  return total;
}

torch::Tensor Trainable::evaluate(const Weight& weight) const {
  std::vector<torch::Tensor> values;
  for (const std::size_t i : weight.leaves) values.push_back(leaves_[i].value);
  return weight.value(weight.base, values);
}

void Trainable::apply() {
  const torch::NoGradGuard no_grad;
  for (Weight& weight : weights_) {
    torch::Tensor value = evaluate(weight).to(weight.base.scalar_type());
    // A leaf that is its weight must not be the same tensor.
    if (value.is_same(leaves_[weight.leaves[0]].value)) value = value.clone();
    *weight.parameter.value = value.detach().requires_grad_();
  }
}

void Trainable::apply_base() {
  for (Weight& weight : weights_) *weight.parameter.value = weight.base;
}

void Trainable::with_base(const std::function<void()>& f) {
  std::vector<torch::Tensor> present;
  for (Weight& weight : weights_) {
    present.push_back(std::exchange(*weight.parameter.value, weight.base));
  }
  f();
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    *weights_[i].parameter.value = std::move(present[i]);
  }
}

std::vector<torch::Tensor> Trainable::applied() const {
  std::vector<torch::Tensor> values;
  for (const Weight& weight : weights_) values.push_back(*weight.parameter.value);
  return values;
}

void Trainable::share_gradients() {
  for (const Weight& weight : weights_) share_gradient(weight.parameter);
}

void Trainable::collect() {
  share_gradients();
  const torch::NoGradGuard no_grad;
  for (Weight& weight : weights_) {
    torch::Tensor& gradient = weight.parameter.value->mutable_grad();
    if (!gradient.defined()) continue;
    if (weight.gradient.defined()) {
      weight.gradient.add_(gradient);
    } else {
      weight.gradient = gradient.to(torch::kFloat32);
    }
    gradient = torch::Tensor();
  }
}

void Trainable::finish_gradients() {
  for (Weight& weight : weights_) {
    if (!weight.gradient.defined()) continue;
    const torch::AutoGradMode grad(true);
    const torch::Tensor value = evaluate(weight);
    // A partial gradient is summed over all ranks: of rows that ranks share, each adds its share.
    torch::Tensor share = weight.gradient;
    if (const TensorCollectives* sharers = weight.parameter.sharers) {
      share = share.clone();
      const dist::Range rows = weight.parameter.shared_rows;
      share.narrow(0, rows.begin, rows.size()).div_(sharers->size());
    }
    for (const std::size_t i : weight.leaves) {
      Leaf& leaf = leaves_[i];
      const auto gradient = torch::autograd::grad(
          {value}, {leaf.value}, {leaf.partial ? share : weight.gradient}, /*retain_graph=*/true);
      leaf.value.mutable_grad() += gradient[0];
    }
    weight.gradient = torch::Tensor();
  }
  for (Leaf& leaf : leaves_) {
    if (!leaf.partial) continue;
    torch::Tensor& gradient = leaf.value.mutable_grad();
    gradient.copy_(model_->collectives().all_reduce(gradient.clone()));
  }
}

std::vector<Parameter> Trainable::parameters() const {
  std::vector<Parameter> all;
  for (const Weight& weight : weights_) all.push_back(weight.parameter);
  return all;
}

void Trainable::visit_changes(
    const std::function<void(const Parameter&, const torch::Tensor&)>& visit) {
  const torch::NoGradGuard no_grad;
  for (const Weight& weight : weights_) {
    visit(weight.parameter, evaluate(weight) - weight.base.to(torch::kFloat32));
  }
}

}  // namespace mrp::shard
