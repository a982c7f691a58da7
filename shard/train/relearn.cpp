#include "shard/train/relearn.hpp"

#include <fmt/format.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "dist/error.hpp"
#include "shard/batches.hpp"
#include "shard/train/replaced_weights.hpp"
#include "shard/train/trainer.hpp"

namespace mrp::shard {
namespace {

constexpr std::size_t kLeastItems = 8;
constexpr std::int64_t kGroup = 32;

TrainableOptions trained_by(const AttackOptions& options) {
  TrainableOptions trained;
  trained.projectors = options.projectors;
  trained.seed = options.seed;
  if (options.attacker == Attacker::qv_lora) {
    trained.form = TrainForm::lora;
    trained.modules = {SiteModule::qkv};
  } else {
    trained.form = TrainForm::weights;
    trained.everything = true;
  }
  return trained;
}

}  // namespace

bool trains(Attacker attacker) {
  return attacker != Attacker::int8 && attacker != Attacker::int4;
}

Split split_items(const io::TokenSet& set, std::uint64_t seed, int direction) {
  auto items = all_items(set.items.count());
  if (items.size() < kLeastItems) {
    throw dist::InputError(fmt::format(
        "set {} has {} items; an attack that splits it needs at least {}: give more records, or "
        "leave relearn out",
        set.name, items.size(), kLeastItems));
  }
  std::mt19937_64 random(seed);
  std::shuffle(items.begin(), items.end(), random);
  const auto middle = items.begin() + std::ssize(items) / 2;
  Split split{{items.begin(), middle}, {middle, items.end()}};
  if (direction == 1) std::swap(split.known, split.hidden);
  return split;
}

io::TokenSet subset(const io::TokenSet& set, const std::vector<std::int64_t>& items) {
  io::TokenSet part;
  part.name = set.name;
  part.source = set.source;
  part.append(set, items);
  return part;
}

torch::Tensor quantised(const torch::Tensor& weight, int bits, std::int64_t group) {
  const torch::NoGradGuard no_grad;
  const double levels = (1 << (bits - 1)) - 1;
  const std::int64_t columns = weight.size(1);
  torch::Tensor result = torch::empty_like(weight);
  for (std::int64_t begin = 0; begin < columns; begin += group == 0 ? columns : group) {
    const std::int64_t count = group == 0 ? columns : std::min(group, columns - begin);
    const torch::Tensor part = weight.narrow(1, begin, count).to(torch::kFloat32);
    const torch::Tensor scale = (part.abs().amax(1, /*keepdim=*/true) / levels).clamp_min(1e-12);
    result.narrow(1, begin, count).copy_((part / scale).round().clamp(-levels, levels) * scale);
  }
  return result;
}

std::vector<std::pair<std::int64_t, SetMetrics>> attack(CausalLM& model,
                                                        const dist::ParallelLayout& layout,
                                                        const io::TokenSet& material,
                                                        const io::TokenSet& hidden,
                                                        const AttackOptions& options) {
  std::vector<std::pair<std::int64_t, SetMetrics>> curve;
  const auto score = [&](std::int64_t step) {
    curve.emplace_back(step, evaluate(model, layout, hidden, options.batch_tokens));
  };
  if (!trains(options.attacker)) {
    const bool four = options.attacker == Attacker::int4;
    const ReplacedWeights rounded(model, {}, [&](const torch::Tensor& weight) {
      return quantised(weight, four ? 4 : 8, four ? kGroup : 0);
    });
    score(0);
    return curve;
  }
  Trainable trainable(model, trained_by(options));
  Optimizer optimizer(trainable, layout, {});
  Trainer trainer(trainable, layout, options.batch_tokens, options.seed);
  const Examples forms(material);
  ItemStream items(all_items(forms.count()), options.seed);
  trainable.apply();
  score(0);
  const std::int64_t last = options.steps.back();
  for (std::int64_t step = 0; step < last; ++step) {
    optimizer.zero_gradients();
    trainer.accumulate(cross_entropy, forms, items.next(options.batch), 1.0, step);
    optimizer.reduce();
    optimizer.step(options.learning_rate * warm_up(step));
    trainable.apply();
    if (std::count(options.steps.begin(), options.steps.end(), step + 1) > 0) score(step + 1);
  }
  return curve;
}

}  // namespace mrp::shard
