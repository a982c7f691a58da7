// How many numbers the matrices of a model have. As doubles: products of such counts exceed 64
// bits.
#pragma once

#include <cstdint>
#include <vector>

#include "io/model_config.hpp"
#include "shard/site.hpp"

namespace mrp::jobs {

/// Heights of the matrices of one layer that read from the input of `module`.
std::vector<double> heights(const io::ModelConfig& model, shard::SiteModule module);

/// Elements of these matrices.
double elements(const io::ModelConfig& model, shard::SiteModule module);

/// Elements of all of one layer.
double layer_elements(const io::ModelConfig& model);

/// Elements of the embedding, or of the head.
double vocabulary_elements(const io::ModelConfig& model);

/// Elements of all matrices of so many layers.
double matrices(const io::ModelConfig& model, std::int64_t layers);

/// Elements of all matrices of a model.
double weight_elements(const io::ModelConfig& model);

/// Numbers that a pass of so many tokens holds at once in one layer on one of `tensor` ranks.
double activation_elements(const io::ModelConfig& model, std::int64_t tokens, int tensor);

}  // namespace mrp::jobs
