#include "shard/evaluate/options.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace mrp::shard {
namespace {

/// Mean token log-probabilities of the options of one item, by form.
struct OptionMeans {
  struct Choices {
    std::optional<double> right;
    std::vector<double> wrong;
    bool right_is_best = false;  // among equals the first counts
  };
  Choices list, open;
  std::vector<double> paraphrases;
};

void add_choice(OptionMeans::Choices& choices, double mean, bool is_right) {
  const bool beats_wrong = std::ranges::all_of(choices.wrong, [&](double w) { return mean > w; });
  const bool beats_right = !choices.right || mean > *choices.right;
  if (beats_wrong && beats_right) choices.right_is_best = is_right;
  if (is_right) {
    choices.right = mean;
  } else {
    choices.wrong.push_back(mean);
  }
}

std::vector<OptionMeans> means_by_item(const io::TokenSet& set,
                                       const std::vector<SequenceScore>& scores) {
  std::vector<OptionMeans> means(set.ids.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto item = static_cast<std::size_t>(set.options.item[i]);
    const io::OptionForm form = set.options.form[i];
    if (form == io::OptionForm::paraphrase) {
      means[item].paraphrases.push_back(scores[i].mean());
    } else if (set.answer_index[item] >= 0) {
      add_choice(form == io::OptionForm::list ? means[item].list : means[item].open,
                 scores[i].mean(), set.options.choice[i] == set.answer_index[item]);
    }
  }
  return means;
}

std::optional<double> is_best(const OptionMeans::Choices& choices) {
  if (!choices.right) return std::nullopt;
  return choices.right_is_best ? 1.0 : 0.0;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Mean of exp over the values.
double mean_probability(std::vector<double> values) {
  std::ranges::transform(values, values.begin(), [](double value) { return std::exp(value); });
  return mean(values);
}

}  // namespace

void add_option_metrics(const io::TokenSet& set, const std::vector<SequenceScore>& scores,
                        std::vector<ItemMetrics>& items) {
  const std::vector<OptionMeans> means = means_by_item(set, scores);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& [list, open, paraphrases] = means[i];
    ItemMetrics& item = items[i];
    item.text_correct = is_best(list);
    item.open_correct = is_best(open);
    if (item.letter_correct && item.text_correct) {
      item.both_correct = *item.letter_correct * *item.text_correct;
    }
    if (!paraphrases.empty()) item.paraphrase_probability = mean_probability(paraphrases);
    if (!open.right || open.wrong.empty()) continue;
    const double wrong = mean_probability(open.wrong);
    const double right = std::exp(*open.right);
    item.option_probability = right / (right + wrong * static_cast<double>(open.wrong.size()));
    const double reworded = item.paraphrase_probability.value_or(right);
    item.truth_ratio = std::exp(mean(open.wrong)) / reworded;
    item.truth_ratio_arithmetic = wrong / reworded;
  }
}

}  // namespace mrp::shard
