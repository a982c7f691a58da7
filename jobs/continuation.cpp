#include "jobs/continuation.hpp"

#include <fmt/format.h>

#include <string_view>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "dist/log.hpp"
#include "io/checkpoint.hpp"
#include "io/hash.hpp"
#include "io/manifest.hpp"
#include "jobs/workspace.hpp"
#include "shard/edit/output_directory.hpp"
#include "shard/edit/tensor_digests.hpp"

namespace mrp::jobs {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEarlier = "earlier_";

/// The stage's entry in the manifest of `work`, or an empty one.
io::StageRecord recorded(const fs::path& work, const std::string& stage) {
  const auto manifest = io::Manifest::read(Workspace(work).manifest());
  const auto found = manifest.stages.find(stage);
  return found == manifest.stages.end() ? io::StageRecord() : found->second;
}

template <class T>
std::string_view bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string digest(const io::Sequences& sequences) {
  return io::xxh3_128(bytes(sequences.token_ids)) + io::xxh3_128(bytes(sequences.offsets)) +
         io::xxh3_128(bytes(sequences.target_mask));
}

}  // namespace

Continuation find_continuation(const fs::path& path) {
  const bool is_checkpoint = !shard::merged_fingerprint(path).empty();
  const fs::path work = is_checkpoint ? fs::path(path.string() + ".work") : path;
  const io::StageRecord merge = recorded(work, "merge");
  const fs::path checkpoint =
      is_checkpoint || merge.outputs.empty() ? path : fs::path(merge.outputs.front());
  const std::string merged = shard::merged_fingerprint(checkpoint);
  if (merged.empty()) {
    throw dist::UsageError(fmt::format(
        "continue: {} is neither a checkpoint that mrp wrote nor the work directory of one; to "
        "unlearn from any other checkpoint name it as model",
        path.string()));
  }
  if (merge.fingerprint == merged) return {checkpoint, work};
  if (!is_checkpoint) {
    throw dist::UsageError(fmt::format(
        "continue: {} is not the checkpoint that the job of {} wrote; run that job again, or name "
        "the checkpoint itself",
        checkpoint.string(), path.string()));
  }
  return {checkpoint, {}};
}

void require_unmodified(const fs::path& checkpoint, const dist::Communicator& world) {
  dist::log::info(fmt::format("continue: comparing {} with what was written", checkpoint.string()));
  const auto opened = dist::agree(world, [&] { return io::Checkpoint(checkpoint); });
  const std::string found = shard::combined_digest(shard::tensor_digests(opened, world));
  dist::agree(world, [&] {
    if (found == shard::merged_digest(checkpoint)) return;
    throw dist::InputError(fmt::format(
        "continue: the weights in {} are not those that mrp wrote; name it as model if the change "
        "is meant, which does not look after earlier requests",
        checkpoint.string()));
  });
}

bool is_forgotten(const std::string& set) {
  return set == "forget" || set.starts_with(kEarlier);
}

std::map<std::string, io::TokenSet> earlier_requests(const JobConfig& config) {
  std::map<std::string, io::TokenSet> earlier;
  if (config.earlier_work.empty()) return earlier;
  const fs::path path = Workspace(config.earlier_work).tokens();
  if (!fs::exists(path)) return earlier;
  auto tokens = io::TokenDataset::read(path);
  for (auto& [name, set] : tokens.sets) {
    if (name.starts_with(kEarlier)) earlier.emplace(name, std::move(set));
  }
  io::TokenSet last = tokens.set("forget");
  last.name = fmt::format("{}{}", kEarlier, earlier.size() + 1);
  earlier.emplace(last.name, std::move(last));
  return earlier;
}

std::string digest(const io::TokenSet& set) {
  const io::Options& options = set.options;
  return io::xxh3_128(digest(set.items) + digest(options.sequences) +
                      io::xxh3_128(bytes(options.item)) + io::xxh3_128(bytes(options.choice)) +
                      io::xxh3_128(bytes(options.form)) + io::xxh3_128(bytes(set.answer_index)) +
                      io::xxh3_128(bytes(set.letter_position)) +
                      io::xxh3_128(bytes(set.letter_token_ids)));
}

io::SubspaceFile earlier_subspaces(const JobConfig& config) {
  const Workspace work(config.earlier_work);
  if (config.earlier_work.empty() || !fs::exists(work.subspaces())) return {};
  io::SubspaceFile file = io::SubspaceFile::read(work.subspaces());
  // What another job left there was not folded.
  return file.fingerprint == recorded(config.earlier_work, "solve").fingerprint
             ? std::move(file)
             : io::SubspaceFile();
}

}  // namespace mrp::jobs
