// Random matrices, subspaces and small checkpoints for the tests of shard/edit, and dense
// arithmetic as their oracle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "dist/communicator.hpp"
#include "io/checkpoint.hpp"
#include "io/dtype.hpp"
#include "io/model_config.hpp"
#include "io/subspace_store.hpp"
#include "shard/edit/edit_plan.hpp"

namespace mrp::test {

/// Row-major.
struct Matrix {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<double> values;

  Matrix(std::int64_t r, std::int64_t c)
      : rows(r), columns(c), values(static_cast<std::size_t>(r * c), 0.0) {}
  double& at(std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(i * columns + j)];
  }
  double at(std::int64_t i, std::int64_t j) const {
    return values[static_cast<std::size_t>(i * columns + j)];
  }
};

Matrix multiply(const Matrix& a, const Matrix& b);
Matrix transpose(const Matrix& a);
double norm(const Matrix& a);
/// ‖a − b‖ / ‖b‖
double distance(const Matrix& a, const Matrix& b);

Matrix random_matrix(std::int64_t rows, std::int64_t columns, double scale,
                     std::mt19937_64& random);

/// The bytes of `a` in `dtype` (to nearest), and back.
std::vector<std::byte> to_bytes(const Matrix& a, io::DType dtype);
Matrix from_bytes(std::span<const std::byte> bytes, io::DType dtype, std::int64_t rows,
                  std::int64_t columns);

/// Bᵀ A = I with random A and, if `oblique`, an independent B; else A = B orthonormal. The columns
/// of A have very different lengths.
io::StoredSubspace random_subspace(const std::string& site, std::int64_t width, std::int64_t k,
                                   bool oblique, std::mt19937_64& random);
Matrix side_a(const io::StoredSubspace& subspace);
Matrix side_b(const io::StoredSubspace& subspace);
/// P = I − A Bᵀ, dense.
Matrix projector(const io::StoredSubspace& subspace);

/// A tiny Llama: 3 layers, hidden 40, heads 4 × 12, intermediate 72, vocabulary 50.
io::ModelConfig tiny_config();

struct CheckpointOptions {
  io::DType dtype = io::DType::bf16;
  bool biases = true;  ///< of o_proj and down_proj
  bool tied = false;
  std::int64_t shards = 3;
};

/// Random weights in `shards` files with an index (one file: none), config.json and two other
/// files. One rank calls it.
void write_checkpoint(const std::filesystem::path& directory, const CheckpointOptions& options);

/// All tensors of a checkpoint as dense matrices; vectors have one row.
std::map<std::string, Matrix> read_tensors(const io::Checkpoint& checkpoint);

/// Random changes of every one of `tensors`, values of about `scale`.
std::map<std::string, Matrix> random_deltas(const io::Checkpoint& checkpoint,
                                            const std::vector<std::string>& tensors, double scale);
/// Collective: deltas.h5 with these changes, in the shapes of the checkpoint.
void write_deltas(const std::filesystem::path& path, const io::Checkpoint& checkpoint,
                  const std::map<std::string, Matrix>& deltas, const dist::Communicator& comm);

/// All tensors with the edits of `plan` applied as dense matrices: changes, then folds.
std::map<std::string, Matrix> dense_merge(std::map<std::string, Matrix> tensors,
                                          const shard::EditPlan& plan,
                                          const io::SubspaceFile& subspaces,
                                          const std::map<std::string, Matrix>& deltas = {});

/// The names of all files below a directory with their bytes.
std::map<std::string, std::string> read_files(const std::filesystem::path& directory);

}  // namespace mrp::test
