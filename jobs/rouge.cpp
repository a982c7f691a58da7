#include "jobs/rouge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "dist/agree.hpp"
#include "dist/checked_cast.hpp"
#include "io/file.hpp"
#include "jobs/model_setup.hpp"
#include "jobs/python.hpp"
#include "shard/generate.hpp"

namespace mrp::jobs {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int64_t kMostTokens = 200;  // TOFU

/// An item cut where its answer begins, and what the model says there.
struct Question {
  std::size_t item = 0;
  Tokens prompt;
  Tokens answer;
  Tokens generated;
};

std::vector<Question> questions_of(const io::TokenSet& set) {
  std::vector<Question> questions;
  for (std::int64_t i = 0; i < set.items.count(); ++i) {
    const auto tokens = set.items.tokens(i);
    const auto mask = set.items.mask(i);
    const auto before = std::ranges::find(mask, std::uint8_t{1});
    const std::ptrdiff_t start = before - mask.begin() + 1;
    if (start == 1) continue;  // a text: nothing but BOS stands before it
    questions.push_back({static_cast<std::size_t>(i),
                         {tokens.begin(), tokens.begin() + start},
                         {tokens.begin() + start, tokens.end()},
                         {}});
  }
  return questions;
}

/// Collective over the world.
void answer(const Job& job, const shard::CausalLM& model, const dist::ParallelLayout& layout,
            const std::string& set, std::vector<Question>& questions) {
  std::vector<Tokens> prompts;
  for (const Question& question : questions) prompts.push_back(question.prompt);
  shard::GenerateOptions options;
  options.max_tokens = kMostTokens;
  options.batch_tokens = batch_tokens(job.config, model);
  if (const auto& ends = model.config().eos_token_ids; !ends.empty()) {
    options.end_token = dist::checked_cast<std::int32_t>(ends.front(), "eos_token_id");
  }
  auto generated = shard::generate(model, layout, prompts, options, fmt::format("set {}", set));
  for (std::size_t i = 0; i < questions.size(); ++i) {
    questions[i].generated = std::move(generated[i]);
  }
}

/// All sets in one call of the program, which takes seconds to start. One rank calls it.
void score(const Job& job, const std::map<std::string, std::vector<Question>>& sets,
           std::map<std::string, nlohmann::json>& measured) {
  std::string lines;
  std::vector<nlohmann::json*> items;
  for (const auto& [set, questions] : sets) {
    for (const Question& question : questions) {
      const nlohmann::json line{{"generated", question.generated}, {"answer", question.answer}};
      lines += line.dump() + "\n";
      items.push_back(&measured.at(set).at("items").at(question.item));
    }
  }
  const auto path = job.work.directory() / "generated.jsonl";
  io::write_text(path, lines);
  std::size_t next = 0;
  run_python(
      "rouge.py", {"--model", job.config.model.string(), "--input", path.string()},
      [&](const std::string& line) { items.at(next++)->update(nlohmann::json::parse(line)); });
  std::filesystem::remove(path);
}

}  // namespace

void add_rouge(const Job& job, const shard::CausalLM& model, const dist::ParallelLayout& layout,
               const io::TokenDataset& tokens, std::map<std::string, nlohmann::json>& measured) {
  std::map<std::string, std::vector<Question>> sets;
  for (const auto& [set, unused] : measured) {
    std::vector<Question> questions = questions_of(tokens.set(set));
    if (questions.empty()) continue;
    answer(job, model, layout, set, questions);
    sets[set] = std::move(questions);
  }
  dist::agree(*job.world, [&] {
    if (job.world->is_root() && !sets.empty()) score(job, sets, measured);
  });
}

}  // namespace mrp::jobs
