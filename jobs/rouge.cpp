#include "jobs/rouge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "dist/agree.hpp"
#include "dist/checked_cast.hpp"
#include "io/file.hpp"
#include "jobs/python.hpp"
#include "shard/generate.hpp"

namespace mrp::jobs {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int64_t kMostTokens = 200;  // TOFU

/// An item cut where its answer begins.
struct Question {
  std::size_t item = 0;
  Tokens prompt;
  Tokens answer;
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
                         {tokens.begin() + start, tokens.end()}});
  }
  return questions;
}

std::vector<Tokens> continuations(const Job& job, const shard::CausalLM& model,
                                  const dist::ParallelLayout& layout,
                                  const std::vector<Question>& questions, const std::string& set) {
  std::vector<Tokens> prompts;
  for (const Question& question : questions) prompts.push_back(question.prompt);
  shard::GenerateOptions options;
  options.max_tokens = kMostTokens;
  options.batch_tokens = job.config.parallel.batch_tokens;
  if (const auto& ends = model.config().eos_token_ids; !ends.empty()) {
    options.end_token = dist::checked_cast<std::int32_t>(ends.front(), "eos_token_id");
  }
  return shard::generate(model, layout, prompts, options, fmt::format("set {}", set));
}

/// One rank calls it.
void score(const Job& job, const std::vector<Question>& questions,
           const std::vector<Tokens>& generated, nlohmann::json& items) {
  std::string lines;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    lines += nlohmann::json{{"generated", generated[i]}, {"answer", questions[i].answer}}.dump();
    lines += "\n";
  }
  const auto path = job.work.directory() / "generated.jsonl";
  io::write_text(path, lines);
  std::size_t next = 0;
  run_python("rouge.py", {"--model", job.config.model.string(), "--input", path.string()},
             [&](const std::string& line) {
               items.at(questions.at(next++).item).update(nlohmann::json::parse(line));
             });
  std::filesystem::remove(path);
}

}  // namespace

void add_rouge(const Job& job, const shard::CausalLM& model, const dist::ParallelLayout& layout,
               const io::TokenSet& set, nlohmann::json& measured) {
  const std::vector<Question> questions = questions_of(set);
  if (questions.empty()) return;
  const auto generated = continuations(job, model, layout, questions, set.name);
  dist::agree(*job.world, [&] {
    if (job.world->is_root()) score(job, questions, generated, measured.at("items"));
  });
}

}  // namespace mrp::jobs
