// Runs the token sets through the model and streams the hidden states of the sites into states.h5.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "dist/parallel_layout.hpp"
#include "dist/timer.hpp"
#include "io/token_dataset.hpp"
#include "shard/model/causal_lm.hpp"
#include "shard/site.hpp"

namespace mrp::shard {

enum class Positions { target, all };

struct CaptureOptions {
  std::vector<std::string> sets;  ///< "forget", "retain", "samples"
  std::vector<Site> sites;
  Positions positions = Positions::target;
  std::int64_t batch_tokens = 4096;  ///< token budget of a batch, padding included
  std::string fingerprint;
};

/// Collective over layout.world(). The first position of a sequence (BOS, attention sink) is never
/// kept. Sequences are sorted by length; the rows of the file follow that order whatever the rank
/// count. Hidden states leave as the model's dtype when that is bf16 or f32. Nothing above the last
/// site is computed.
/// @throws NumericalError naming site and sequence for NaN or Inf; ResourceError before writing if
/// the disk is too small.
/// Layers that are read one by one are read once: every batch passes a layer before the next one,
/// and the residual streams [all tokens × hidden] wait in host memory.
void capture(CausalLM& model, const dist::ParallelLayout& layout, const io::TokenDataset& tokens,
             const CaptureOptions& options, const std::filesystem::path& output,
             dist::Timers& timers);

}  // namespace mrp::shard
