// What the stages of a job compute, move and hold, by formula; README and tests/bench/scaling
// compare the formulas with what is measured.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/token_dataset.hpp"
#include "jobs/stage_graph.hpp"
#include "shard/model/causal_lm.hpp"

namespace mrp::jobs {

/// How a job is spread.
struct Spread {
  int tensor = 1;
  int data = 1;
  torch::Device device = torch::kCPU;
  torch::ScalarType dtype = torch::kFloat32;  ///< of the products
  shard::Residency residency{};               ///< of capture
  bool recompute = false;                     ///< in training, each layer for its gradient
  std::uint64_t memory = 0;                   ///< bytes that a rank may use

  int ranks() const { return tensor * data; }
};

struct StageCost {
  std::string stage;
  double operations = 0;  ///< floating-point, of all ranks, in the type of the products
  double wide = 0;        ///< of these, in fp64
  double read = 0;        ///< bytes from disk, all ranks
  double written = 0;     ///< bytes to disk, all ranks
  double sent = 0;        ///< payload of collectives, bytes of a rank
  double memory = 0;      ///< bytes of a rank above an idle program
};

/// Of the stages that the job has, in order, but for relearn. Upper bounds where the job decides on
/// its way (automatic dimensions, lengths of samples). Not collective.
std::vector<StageCost> stage_costs(const Job& job, const io::Checkpoint& checkpoint,
                                   const io::ModelConfig& model, const io::TokenDataset& tokens,
                                   const Spread& spread);

/// Bytes that the stages leave in the work directory.
double work_bytes(const std::vector<StageCost>& costs);

}  // namespace mrp::jobs
