// From a job's settings to what is trained and how.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "jobs/stage_graph.hpp"
#include "shard/site.hpp"
#include "shard/train/refine.hpp"

namespace mrp::jobs {

/// Collective over the world. Where changes are confined: by the states of `kept`, and by the
/// gradients of the predictions of `predicted`. @throws UsageError if projections that grow leave
/// nothing of a site.
shard::TrainableOptions trainable_options(const Job& job, shard::CausalLM& model,
                                          const dist::ParallelLayout& layout,
                                          const io::TokenSet& forget, const io::TokenSet& kept,
                                          const io::TokenSet& predicted);

/// `refine.output_softness`, or what stands for auto. Letters of choice questions that nobody
/// listed are what is lost first without; answers in free text resist an attack less with it, since
/// what tells them is among what the predictions of any text hang on.
double output_softness(const JobConfig& config, const io::TokenSet& forget);

/// The input of a module of `refine.modules` in the first layer.
shard::Site input_site(const std::string& module);

/// What makes the projectors of `trainable` grow (`refine.grow_directions` a time), by patterns
/// that tell forget from retain in what they leave of the states with the present weights. To be
/// called with the number of times before, collectively over the world; the references must stay.
std::function<void(std::int64_t)> growth(const Job& job, shard::CausalLM& model,
                                         const dist::ParallelLayout& layout,
                                         shard::Trainable& trainable, const io::TokenSet& forget,
                                         const io::TokenSet& kept);

/// Directory of the saved state of this very training on this number of ranks.
std::filesystem::path refine_state(const Job& job);

shard::RefineOptions refine_options(const Job& job, const shard::CausalLM& model);

}  // namespace mrp::jobs
