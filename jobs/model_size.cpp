#include "jobs/model_size.hpp"

#include <numeric>

namespace mrp::jobs {

using shard::Side, shard::Site, shard::SiteModule;

std::vector<double> heights(const io::ModelConfig& model, SiteModule module) {
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto middle = static_cast<double>(model.intermediate_size);
  const auto queries = static_cast<double>(model.heads * model.head_dim);
  const auto keys = static_cast<double>(model.kv_heads * model.head_dim);
  switch (module) {
    case SiteModule::qkv:
      return {queries, keys, keys};
    case SiteModule::gate_up:
      return {middle, middle};
    case SiteModule::o_proj:
    case SiteModule::down_proj:
      return {hidden};
    case SiteModule::stream:
      break;
  }
  return {};
}

double elements(const io::ModelConfig& model, SiteModule module) {
  const auto all = heights(model, module);
  return std::accumulate(all.begin(), all.end(), 0.0) *
         static_cast<double>(Site{0, module, Side::input}.width(model));
}

double layer_elements(const io::ModelConfig& model) {
  double sum = 0;
  for (const SiteModule module :
       {SiteModule::qkv, SiteModule::o_proj, SiteModule::gate_up, SiteModule::down_proj}) {
    sum += elements(model, module);
  }
  return sum;
}

double vocabulary_elements(const io::ModelConfig& model) {
  return static_cast<double>(model.vocab_size) * static_cast<double>(model.hidden_size);
}

double matrices(const io::ModelConfig& model, std::int64_t layers) {
  return static_cast<double>(layers) * layer_elements(model);
}

double weight_elements(const io::ModelConfig& model) {
  // One matrix where the head is the embedding.
  return matrices(model, model.layers) +
         vocabulary_elements(model) * (model.tie_word_embeddings ? 1 : 2);
}

double activation_elements(const io::ModelConfig& model, std::int64_t tokens, int tensor) {
  const auto whole = static_cast<double>(4 * model.hidden_size);
  const auto split =
      static_cast<double>(3 * model.intermediate_size + 3 * model.heads * model.head_dim);
  return static_cast<double>(tokens) * (whole + split / tensor);
}

}  // namespace mrp::jobs
