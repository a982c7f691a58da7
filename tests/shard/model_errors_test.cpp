// What a damaged or unsupported checkpoint says, on all ranks alike.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dist/agree.hpp"
#include "dist/error.hpp"
#include "io/safetensors.hpp"
#include "shard/capture.hpp"
#include "shard/evaluate.hpp"
#include "shard/golden_case.hpp"
#include "shard/model/causal_lm.hpp"
#include "support/temp_folder.hpp"

namespace mrp::shard {
namespace {

using test::GoldenCase;

struct StoredTensor {
  io::DType dtype{};
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  void set(std::size_t element, float value) {
    std::memcpy(bytes.data() + element * sizeof(float), &value, sizeof(float));
  }
};
using Tensors = std::map<std::string, StoredTensor>;

class ModelErrorTest : public testing::Test {
 protected:
  /// A copy of the golden checkpoint, changed by `change`.
  io::Checkpoint changed(const std::function<void(Tensors&)>& change) {
    dist::agree(world_, [&] {
      if (world_.is_root()) write(change);
    });
    return io::Checkpoint(folder_.path());
  }

  void write(const std::function<void(Tensors&)>& change) const {
    Tensors tensors;
    for (const std::string& name : golden_.checkpoint().names()) {
      const io::TensorInfo& info = golden_.checkpoint().info(name);
      tensors[name] = {info.dtype, info.shape, golden_.checkpoint().read(name)};
    }
    change(tensors);
    std::vector<io::TensorData> data;
    for (const auto& [name, tensor] : tensors) {
      data.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
    }
    io::write_safetensors(folder_.path() / "model.safetensors", data);
    std::filesystem::copy_file(golden_.directory() / "config.json", folder_.path() / "config.json",
                               std::filesystem::copy_options::overwrite_existing);
  }

  /// The message of the Exception that building the model throws.
  template <class Exception>
  std::string message(const io::Checkpoint& checkpoint, const io::ModelConfig& config) {
    const dist::ParallelLayout layout(world_, world_.size());
    try {
      const CausalLM model(checkpoint, config, layout, {});
    } catch (const Exception& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  dist::Communicator world_ = dist::Communicator::world();
  test::TempFolder folder_{world_};
  GoldenCase golden_{"grouped"};
};

TEST_F(ModelErrorTest, TensorSizeThatDoesNotDivideNamesTheLegalOnes) {
  io::ModelConfig config = golden_.config();
  EXPECT_EQ(legal_tensor_sizes(config), (std::vector<int>{1, 2, 4}));
  config.kv_heads = 1;
  EXPECT_EQ(legal_tensor_sizes(config), (std::vector<int>{1, 2, 4}));
  config.intermediate_size = 46;
  EXPECT_EQ(legal_tensor_sizes(config), (std::vector<int>{1, 2}));
  config.heads = 6;
  config.kv_heads = 2;
  config.intermediate_size = 60;
  EXPECT_EQ(legal_tensor_sizes(config), (std::vector<int>{1, 2, 6}));
  config.heads = 3;
  config.kv_heads = 3;
  if (world_.size() == 1) return;
  const std::string text = message<dist::UsageError>(golden_.checkpoint(), config);
  EXPECT_NE(text.find("legal tensor sizes are: 1, 3"), std::string::npos) << text;
}

TEST_F(ModelErrorTest, UnsupportedModelTypeListsTheSupported) {
  io::ModelConfig config = golden_.config();
  config.model_type = "gpt_neox";
  EXPECT_EQ(message<dist::InputError>(golden_.checkpoint(), config),
            "model_type \"gpt_neox\" is not supported; supported are: llama, mistral");
}

TEST_F(ModelErrorTest, UnsupportedActivationListsTheSupported) {
  io::ModelConfig config = golden_.config();
  config.hidden_act = "relu2";
  EXPECT_EQ(message<dist::InputError>(golden_.checkpoint(), config),
            "hidden_act \"relu2\" is not supported; supported are: silu, gelu, gelu_pytorch_tanh");
}

TEST_F(ModelErrorTest, MissingTensorIsNamed) {
  const auto checkpoint =
      changed([](Tensors& tensors) { tensors.erase("model.layers.1.mlp.up_proj.weight"); });
  const std::string text = message<dist::InputError>(checkpoint, golden_.config());
  EXPECT_NE(text.find("model.layers.1.mlp.up_proj.weight"), std::string::npos) << text;
}

TEST_F(ModelErrorTest, WrongShapeIsNamedWithBothShapes) {
  io::ModelConfig config = golden_.config();
  config.intermediate_size = 64;
  const std::string text = message<dist::InputError>(golden_.checkpoint(), config);
  EXPECT_NE(text.find("mlp.gate_proj.weight in "), std::string::npos) << text;
  EXPECT_NE(text.find("has shape [48, 32], but config.json asks for [64, 32]"), std::string::npos)
      << text;
}

TEST_F(ModelErrorTest, IntegerWeightsAreRefused) {
  const auto checkpoint =
      changed([](Tensors& tensors) { tensors["model.norm.weight"].dtype = io::DType::i32; });
  const std::string text = message<dist::InputError>(checkpoint, golden_.config());
  EXPECT_NE(text.find("model.norm.weight has type I32"), std::string::npos) << text;
}

TEST_F(ModelErrorTest, NanOrInfInAWeightNamesTheTensor) {
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    // The last element: only the last rank reads it.
    const auto checkpoint = changed([&](Tensors& tensors) {
      tensors["model.layers.2.self_attn.k_proj.weight"].set(32 * 16 - 1, value);
    });
    const std::string text = message<dist::InputError>(checkpoint, golden_.config());
    EXPECT_NE(text.find("tensor model.layers.2.self_attn.k_proj.weight in "), std::string::npos)
        << text;
    EXPECT_NE(text.find("holds NaN or Inf"), std::string::npos) << text;
  }
}

TEST_F(ModelErrorTest, SequencesLongerThanPositionsOrWindow) {
  io::ModelConfig config = golden_.config();
  EXPECT_NO_THROW(check_length(config, 64));
  EXPECT_THROW(check_length(config, 65), dist::InputError);
  config.sliding_window = 32;
  EXPECT_NO_THROW(check_length(config, 32));
  try {
    check_length(config, 33);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const dist::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("sliding window of 32"), std::string::npos);
  }
}

/// Finite weights, but so large that the states of a token overflow.
class OverflowTest : public ModelErrorTest {
 protected:
  io::Checkpoint overflowing() {
    return changed([](Tensors& tensors) {
      for (const char* name : {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
        StoredTensor& weight = tensors[std::string("model.layers.1.") + name + ".weight"];
        for (std::size_t i = 0; i < weight.bytes.size() / sizeof(float); ++i) weight.set(i, 1e20f);
      }
    });
  }
};

TEST_F(OverflowTest, CaptureNamesSiteAndSequenceOnAllRanks) {
  const auto checkpoint = overflowing();
  for (const int size : test::tensor_sizes(world_.size())) {
    const dist::ParallelLayout layout(world_, size);
    CausalLM model(checkpoint, golden_.config(), layout, {.head = false});
    io::TokenDataset tokens;
    tokens.sets["forget"] = golden_.token_set();
    dist::Timers timers;
    const auto path = folder_.path() / "states.h5";
    try {
      capture(model, layout, tokens,
              {{"forget"},
               make_sites({"qkv.input", "down_proj.output"}, {0, 1, 2}, golden_.config()),
               Positions::all,
               20,
               ""},
              path, timers);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const dist::NumericalError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("layers.1.down_proj.output are NaN or Inf: set forget, sequence "),
                std::string::npos)
          << text;
      EXPECT_NE(text.find("(id \"item-"), std::string::npos) << text;
    }
    world_.barrier();
    EXPECT_FALSE(std::filesystem::exists(path));
  }
}

TEST_F(OverflowTest, EvaluateNamesTheSequenceOnAllRanks) {
  const auto checkpoint = overflowing();
  for (const int size : test::tensor_sizes(world_.size())) {
    const dist::ParallelLayout layout(world_, size);
    const CausalLM model(checkpoint, golden_.config(), layout, {});
    try {
      evaluate(model, layout, golden_.token_set(), 50);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const dist::NumericalError& error) {
      EXPECT_NE(std::string(error.what()).find("set forget, sequence 0: the log-probability is "),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace mrp::shard
