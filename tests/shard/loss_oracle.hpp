// What losses are compared with: logits of the base model and of a changed one, from one rank.
#pragma once

#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <optional>

#include "shard/golden_case.hpp"
#include "shard/train/trainable.hpp"
#include "shard/train_case.hpp"

namespace mrp::test {

/// Changes every number by something that depends on that number only, on any number of ranks.
inline void move(shard::Trainable& trainable) {
  const torch::NoGradGuard no_grad;
  for (shard::Leaf& leaf : trainable.leaves()) leaf.value.add_((leaf.value * 20).sin() * 0.05);
  trainable.apply();
}

inline shard::TrainableOptions all_weights() {
  shard::TrainableOptions options;
  options.form = shard::TrainForm::weights;
  return options;
}

inline double spread_of(const torch::Tensor& values) {
  return std::sqrt(values.var(/*unbiased=*/false).item<double>() + 0.01) - 0.1;
}

/// What one rank computes of the base model and of the changed one.
class Oracle {
 public:
  Oracle(const GoldenCase& golden, const dist::ParallelLayout& alone)
      : base_(golden.checkpoint(), golden.config(), alone, {}),
        moved_(golden.checkpoint(), golden.config(), alone, {}),
        trainable_(moved_, all_weights()) {
    move(trainable_);
  }

  shard::Trainable& trainable() { return trainable_; }

  /// fp64 [answer × vocabulary], those that predict the answer.
  torch::Tensor logits(const Tokens& prompt, const Tokens& answer, bool base = false) const {
    const torch::NoGradGuard no_grad;
    const shard::CausalLM& model = base ? base_ : moved_;
    const torch::Tensor states = model.hidden_states(batch(joined(prompt, answer)));
    const auto begin = std::ssize(prompt) - 1;
    return model.local_logits(states[0])
        .slice(0, begin, begin + std::ssize(answer))
        .to(torch::kFloat64);
  }
  torch::Tensor log_p(const Tokens& prompt, const Tokens& answer, bool base = false) const {
    const torch::Tensor index =
        torch::tensor(std::vector<std::int64_t>(answer.begin(), answer.end()));
    return logits(prompt, answer, base).log_softmax(1).gather(1, index.unsqueeze(1)).squeeze(1);
  }
  double mean_log_p(const Tokens& prompt, const Tokens& answer) const {
    return log_p(prompt, answer).mean().item<double>();
  }
  torch::Tensor letters(const Question& question, bool base = false) const {
    const torch::Tensor index =
        torch::tensor(std::vector<std::int64_t>(question.letters.begin(), question.letters.end()));
    return logits(question.prompt, {0}, base)[0].index_select(0, index);
  }
  /// After the middle layer, [tokens × width].
  torch::Tensor middle(const Tokens& tokens, bool base) const {
    const torch::NoGradGuard no_grad;
    const shard::Site site{1, shard::SiteModule::stream, shard::Side::output};
    torch::Tensor found;
    (base ? base_ : moved_)
        .hidden_states(batch(tokens), [&](const shard::Site& seen, const torch::Tensor& x) {
          if (seen == site) found = x[0].to(torch::kFloat64);
          return std::optional<torch::Tensor>();
        });
    return found;
  }

 private:
  static torch::Tensor batch(const Tokens& tokens) {
    return torch::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
  }

  shard::CausalLM base_, moved_;
  shard::Trainable trainable_;
};

}  // namespace mrp::test
