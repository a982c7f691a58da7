#include "shard/edit_case.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "dist/agree.hpp"
#include "io/delta_store.hpp"
#include "io/file.hpp"
#include "io/safetensors.hpp"

namespace mrp::test {

namespace fs = std::filesystem;

Matrix multiply(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t l = 0; l < a.columns; ++l) {
      for (std::int64_t j = 0; j < b.columns; ++j) c.at(i, j) += a.at(i, l) * b.at(l, j);
    }
  }
  return c;
}

Matrix transpose(const Matrix& a) {
  Matrix t(a.columns, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < a.columns; ++j) t.at(j, i) = a.at(i, j);
  }
  return t;
}

double norm(const Matrix& a) {
  double sum = 0;
  for (const double x : a.values) sum += x * x;
  return std::sqrt(sum);
}

double distance(const Matrix& a, const Matrix& b) {
  Matrix d = a;
  for (std::size_t i = 0; i < d.values.size(); ++i) d.values[i] -= b.values[i];
  return norm(d) / norm(b);
}

Matrix random_matrix(std::int64_t rows, std::int64_t columns, double scale,
                     std::mt19937_64& random) {
  std::normal_distribution<double> normal(0.0, scale);
  Matrix m(rows, columns);
  for (double& x : m.values) x = normal(random);
  return m;
}

std::vector<std::byte> to_bytes(const Matrix& a, io::DType dtype) {
  std::vector<std::byte> bytes;
  const auto append = [&](auto value) {
    const std::size_t at = bytes.size();
    bytes.resize(at + sizeof value);
    std::memcpy(bytes.data() + at, &value, sizeof value);
  };
  for (const double x : a.values) {
    const auto f = static_cast<float>(x);
    if (dtype == io::DType::bf16) append(io::float_to_bf16(f));
    if (dtype == io::DType::f16) append(io::float_to_f16(f));
    if (dtype == io::DType::f32) append(f);
  }
  return bytes;
}

Matrix from_bytes(std::span<const std::byte> bytes, io::DType dtype, std::int64_t rows,
                  std::int64_t columns) {
  Matrix m(rows, columns);
  std::vector<float> floats(m.values.size());
  io::to_float(dtype, bytes, floats);
  m.values.assign(floats.begin(), floats.end());
  return m;
}

namespace {

/// The columns of `m` made orthonormal, one after the other, twice.
void gram_schmidt(Matrix& m) {
  for (std::int64_t j = 0; j < m.columns; ++j) {
    for (int round = 0; round < 2; ++round) {
      for (std::int64_t l = 0; l < j; ++l) {
        double dot = 0;
        for (std::int64_t i = 0; i < m.rows; ++i) dot += m.at(i, l) * m.at(i, j);
        for (std::int64_t i = 0; i < m.rows; ++i) m.at(i, j) -= dot * m.at(i, l);
      }
      double length = 0;
      for (std::int64_t i = 0; i < m.rows; ++i) length += m.at(i, j) * m.at(i, j);
      for (std::int64_t i = 0; i < m.rows; ++i) m.at(i, j) /= std::sqrt(length);
    }
  }
}

/// m ← m · c⁻¹ for a square c, by elimination without pivoting (c is near the identity).
void divide_right(Matrix& m, Matrix c) {
  for (std::int64_t p = 0; p < c.rows; ++p) {
    const double pivot = c.at(p, p);
    for (std::int64_t i = 0; i < c.rows; ++i) c.at(i, p) /= pivot;
    for (std::int64_t i = 0; i < m.rows; ++i) m.at(i, p) /= pivot;
    for (std::int64_t j = 0; j < c.rows; ++j) {
      if (j == p) continue;
      const double factor = c.at(p, j);
      for (std::int64_t i = 0; i < c.rows; ++i) c.at(i, j) -= factor * c.at(i, p);
      for (std::int64_t i = 0; i < m.rows; ++i) m.at(i, j) -= factor * m.at(i, p);
    }
  }
}

}  // namespace

io::StoredSubspace random_subspace(const std::string& site, std::int64_t width, std::int64_t k,
                                   bool oblique, std::mt19937_64& random) {
  Matrix a = random_matrix(width, k, 1.0, random);
  gram_schmidt(a);
  Matrix b = a;
  if (oblique) {
    const Matrix noise = random_matrix(width, k, 0.5 / std::sqrt(double(width)), random);
    for (std::size_t i = 0; i < b.values.size(); ++i) b.values[i] += noise.values[i];
    for (std::int64_t j = 0; j < k; ++j) {
      const double scale = std::pow(10.0, double(j % 5) - 2.0);
      for (std::int64_t i = 0; i < width; ++i) a.at(i, j) *= scale;
      for (std::int64_t i = 0; i < width; ++i) b.at(i, j) /= scale;
    }
    divide_right(b, transpose(multiply(transpose(b), a)));  // B ← B (AᵀB)⁻¹
  }
  io::StoredSubspace subspace;
  subspace.site = site;
  subspace.width = width;
  subspace.k = k;
  subspace.a = a.values;
  subspace.b = b.values;
  subspace.eigenvalues.assign(static_cast<std::size_t>(k), 1.0);
  return subspace;
}

Matrix side_a(const io::StoredSubspace& subspace) {
  Matrix m(subspace.width, subspace.k);
  m.values = subspace.a;
  return m;
}

Matrix side_b(const io::StoredSubspace& subspace) {
  Matrix m(subspace.width, subspace.k);
  m.values = subspace.b;
  return m;
}

Matrix projector(const io::StoredSubspace& subspace) {
  Matrix p = multiply(side_a(subspace), transpose(side_b(subspace)));
  for (double& x : p.values) x = -x;
  for (std::int64_t i = 0; i < p.rows; ++i) p.at(i, i) += 1;
  return p;
}

io::ModelConfig tiny_config() {
  io::ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = 40;
  config.layers = 3;
  config.intermediate_size = 72;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 12;
  config.vocab_size = 50;
  return config;
}

namespace {

std::map<std::string, std::vector<std::int64_t>> tensor_shapes(const CheckpointOptions& options) {
  const io::ModelConfig c = tiny_config();
  const std::int64_t heads = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  std::map<std::string, std::vector<std::int64_t>> shapes = {
      {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}},
      {"model.norm.weight", {c.hidden_size}}};
  if (!options.tied) shapes["lm_head.weight"] = {c.vocab_size, c.hidden_size};
  for (std::int64_t l = 0; l < c.layers; ++l) {
    const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
      shapes[fmt::format("model.layers.{}.{}", l, name)] = std::move(shape);
    };
    add("self_attn.q_proj.weight", {heads, c.hidden_size});
    add("self_attn.k_proj.weight", {kv, c.hidden_size});
    add("self_attn.v_proj.weight", {kv, c.hidden_size});
    add("self_attn.o_proj.weight", {c.hidden_size, heads});
    add("mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    add("input_layernorm.weight", {c.hidden_size});
    if (options.biases) {
      add("self_attn.o_proj.bias", {c.hidden_size});
      add("mlp.down_proj.bias", {c.hidden_size});
    }
  }
  return shapes;
}

std::string file_name(std::int64_t shard, std::int64_t shards) {
  return shards == 1 ? "model.safetensors"
                     : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
}

}  // namespace

void write_checkpoint(const fs::path& directory, const CheckpointOptions& options) {
  fs::create_directories(directory);
  std::mt19937_64 random(7);
  std::map<std::string, std::vector<io::TensorData>> files;
  std::map<std::string, std::vector<std::byte>> storage;
  std::string weight_map;
  std::int64_t index = 0;
  for (const auto& [name, shape] : tensor_shapes(options)) {
    const bool matrix = shape.size() == 2;
    const Matrix values =
        random_matrix(matrix ? shape[0] : 1, matrix ? shape[1] : shape[0], 0.1, random);
    storage[name] = to_bytes(values, options.dtype);
    const std::string file = file_name(index++ % options.shards, options.shards);
    files[file].push_back({name, options.dtype, shape, storage[name]});
    weight_map += fmt::format("{}    \"{}\": \"{}\"", weight_map.empty() ? "" : ",\n", name, file);
  }
  for (auto& [file, tensors] : files) io::write_safetensors(directory / file, tensors);
  if (options.shards > 1) {
    io::write_text(directory / "model.safetensors.index.json",
                   fmt::format("{{\n  \"metadata\": {{\"total_size\": 1, \"other\": 2}},\n  "
                               "\"weight_map\": {{\n{}\n  }}\n}}\n",
                               weight_map));
  }
  io::write_text(directory / "config.json", "{\"model_type\": \"llama\"}\n");
  io::write_text(directory / "tokenizer.json", "{ \"odd\":   \"spacing\" }");
}

std::map<std::string, Matrix> read_tensors(const io::Checkpoint& checkpoint) {
  std::map<std::string, Matrix> tensors;
  for (const std::string& name : checkpoint.names()) {
    const io::TensorInfo& info = checkpoint.info(name);
    const bool matrix = info.shape.size() == 2;
    tensors.emplace(name, from_bytes(checkpoint.read(name), info.dtype, matrix ? info.shape[0] : 1,
                                     matrix ? info.shape[1] : info.shape[0]));
  }
  return tensors;
}

std::map<std::string, Matrix> random_deltas(const io::Checkpoint& checkpoint,
                                            const std::vector<std::string>& tensors, double scale) {
  std::mt19937_64 random(11);
  std::map<std::string, Matrix> deltas;
  for (const std::string& name : tensors) {
    const auto& shape = checkpoint.info(name).shape;
    Matrix delta = random_matrix(shape.size() == 2 ? shape[0] : 1, shape.back(), scale, random);
    for (double& x : delta.values) x = static_cast<float>(x);
    deltas.emplace(name, std::move(delta));
  }
  return deltas;
}

void write_deltas(const fs::path& path, const io::Checkpoint& checkpoint,
                  const std::map<std::string, Matrix>& deltas, const dist::Communicator& comm) {
  io::DeltaLayout layout;
  layout.summary = "{}";
  for (const auto& [name, delta] : deltas) layout.tensors[name] = checkpoint.info(name).shape;
  io::DeltaWriter writer(path, layout, "", comm);
  dist::agree(comm, [&] {
    if (!comm.is_root()) return;
    for (const auto& [name, delta] : deltas) {
      const std::vector<float> values(delta.values.begin(), delta.values.end());
      writer.write(name, {0, delta.rows}, {0, delta.columns}, values);
    }
  });
  writer.finish();
}

std::map<std::string, Matrix> dense_merge(std::map<std::string, Matrix> tensors,
                                          const shard::EditPlan& plan,
                                          const io::SubspaceFile& subspaces,
                                          const std::map<std::string, Matrix>& deltas) {
  using shard::FoldSide;
  for (const auto& [name, delta] : deltas) {
    Matrix& w = tensors.at(name);
    for (std::size_t i = 0; i < w.values.size(); ++i) w.values[i] += delta.values[i];
  }
  for (const shard::TensorEdit& edit : plan.edits) {
    Matrix& w = tensors.at(edit.tensor);
    for (const shard::Fold& fold : edit.folds) {
      const Matrix p = projector(subspaces.sites.at(fold.site));
      if (fold.side == FoldSide::input) w = multiply(w, p);
      if (fold.side == FoldSide::output) w = multiply(p, w);
      if (fold.side == FoldSide::rows || fold.side == FoldSide::bias) {
        w = transpose(multiply(p, transpose(w)));
      }
    }
  }
  return tensors;
}

std::map<std::string, std::string> read_files(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) {
      files[fs::relative(entry.path(), directory).string()] = io::read_text(entry.path());
    }
  }
  return files;
}

}  // namespace mrp::test
