#include "io/model_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/error.hpp"
#include "local_folder.hpp"

namespace mrp::io {
namespace {

namespace fs = std::filesystem;
using dist::InputError;
using nlohmann::json;
using test::message_of;
using testing::HasSubstr;

const fs::path golden = fs::path(MRP_TEST_DATA) / "io";

/// What transformers 4 wrote for a small Llama.
json version_4() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "num_hidden_layers": 2, "intermediate_size": 160, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05, "rope_theta": 50000.0, "rope_scaling": null, "hidden_act": "silu",
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1,
    "eos_token_id": 2, "head_dim": null, "pretraining_tp": 1})");
}

class ModelConfigTest : public test::LocalFolder {
 protected:
  ModelConfig read(const json& config) const {
    put("config.json", config.dump());
    return ModelConfig::read(folder());
  }
  /// version_4() with these keys replaced; null values stay, absent ones are removed by "remove".
  ModelConfig patched(const json& patch) const {
    auto config = version_4();
    config.update(patch);
    return read(config);
  }
  std::string refusal(const json& patch) const {
    return message_of<InputError>([&] { patched(patch); });
  }
  ModelConfig without(const std::string& key) const {
    auto config = version_4();
    config.erase(key);
    return read(config);
  }
};

TEST_F(ModelConfigTest, ReadsTheFormOfTransformers4) {
  const auto config = read(version_4());
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.intermediate_size, 160);
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.vocab_size, 1000);
  EXPECT_EQ(config.max_position, 2048);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_EQ(config.rope.type, "default");
  EXPECT_EQ(config.rope.theta, 50000);
  EXPECT_EQ(config.rope.original_max_position, 2048);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_EQ(config.sliding_window, std::nullopt);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_FALSE(config.tie_word_embeddings || config.attention_bias || config.mlp_bias);
}

TEST_F(ModelConfigTest, ReadsWhatTransformers5Writes) {
  const auto llama = ModelConfig::read(golden / "llama");
  EXPECT_EQ(llama.model_type, "llama");
  EXPECT_EQ(llama.hidden_size, 96);
  EXPECT_EQ(llama.intermediate_size, 200);
  EXPECT_EQ(llama.layers, 3);
  EXPECT_EQ(llama.heads, 6);
  EXPECT_EQ(llama.kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 32);
  EXPECT_EQ(llama.vocab_size, 777);
  EXPECT_EQ(llama.max_position, 4096);
  EXPECT_EQ(llama.rms_norm_eps, 2e-5);
  EXPECT_EQ(llama.dtype, "bfloat16");
  EXPECT_TRUE(llama.tie_word_embeddings);
  EXPECT_TRUE(llama.attention_bias);
  EXPECT_FALSE(llama.mlp_bias);
  EXPECT_EQ(llama.eos_token_ids, (std::vector<std::int64_t>{5, 9}));
  EXPECT_EQ(llama.rope.type, "llama3");
  EXPECT_EQ(llama.rope.theta, 5e5);
  EXPECT_EQ(llama.rope.factor, 8);
  EXPECT_EQ(llama.rope.low_freq_factor, 1.5);
  EXPECT_EQ(llama.rope.high_freq_factor, 4.5);
  EXPECT_EQ(llama.rope.original_max_position, 1024);

  const auto mistral = ModelConfig::read(golden / "mistral");
  EXPECT_EQ(mistral.model_type, "mistral");
  EXPECT_EQ(mistral.head_dim, 16);
  EXPECT_EQ(mistral.sliding_window, 64);
  EXPECT_EQ(mistral.dtype, "float32");
  EXPECT_EQ(mistral.rope.type, "default");
  EXPECT_EQ(mistral.rope.theta, 10000);
  EXPECT_EQ(read_model_type(golden / "mistral"), "mistral");
}

TEST_F(ModelConfigTest, FillsInWhatMayBeAbsent) {
  EXPECT_EQ(without("num_key_value_heads").kv_heads, 8);
  EXPECT_EQ(patched({{"num_key_value_heads", nullptr}}).kv_heads, 8);
  EXPECT_EQ(without("head_dim").head_dim, 8);
  EXPECT_EQ(patched({{"head_dim", 128}}).head_dim, 128);
  EXPECT_EQ(without("torch_dtype").dtype, "");
  EXPECT_EQ(without("rope_theta").rope.theta, 10000);
  EXPECT_EQ(without("hidden_act").hidden_act, "silu");
  EXPECT_TRUE(without("eos_token_id").eos_token_ids.empty());
  EXPECT_FALSE(without("tie_word_embeddings").tie_word_embeddings);
  auto gemma = version_4();
  gemma["model_type"] = "gemma";
  gemma.erase("tie_word_embeddings");
  EXPECT_TRUE(read(gemma).tie_word_embeddings);
}

TEST_F(ModelConfigTest, TheNewerNameOfADtypeWins) {
  EXPECT_EQ(patched({{"dtype", "float16"}}).dtype, "float16");
  EXPECT_EQ(patched({{"torch_dtype", "torch.float32"}}).dtype, "float32");
}

TEST_F(ModelConfigTest, SlidingWindows) {
  EXPECT_EQ(patched({{"sliding_window", nullptr}}).sliding_window, std::nullopt);
  EXPECT_EQ(patched({{"sliding_window", 4096}}).sliding_window, 4096);
  EXPECT_EQ(patched({{"sliding_window", 4096}, {"use_sliding_window", false}}).sliding_window,
            std::nullopt);
  EXPECT_EQ(patched({{"sliding_window", 4096}, {"use_sliding_window", true}}).sliding_window, 4096);
  EXPECT_EQ(patched({{"model_type", "mistral"}}).sliding_window, 4096);
  EXPECT_EQ(patched({{"model_type", "mistral"}, {"sliding_window", nullptr}}).sliding_window,
            std::nullopt);
}

TEST_F(ModelConfigTest, RopeFormsOfBothVersions) {
  const auto linear = patched({{"rope_scaling", {{"type", "linear"}, {"factor", 2.5}}}}).rope;
  EXPECT_EQ(linear.type, "linear");
  EXPECT_EQ(linear.factor, 2.5);
  EXPECT_EQ(linear.theta, 50000);
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 512}};
  for (const std::string key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = patched({{key, llama3}}).rope;
    EXPECT_EQ(rope.type, "llama3");
    EXPECT_EQ(rope.theta, 50000);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.original_max_position, 512);
  }
  const auto inner =
      patched({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7.0}}}}).rope;
  EXPECT_EQ(inner.theta, 7);
  EXPECT_EQ(patched({{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2}}}}).rope.type,
            "dynamic");
}

TEST_F(ModelConfigTest, UnsupportedRopeIsRefused) {
  const std::vector<std::pair<json, std::string>> cases = {
      {{{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}},
       "rope_scaling.rope_type is \"yarn\"; allowed: default, linear, dynamic, llama3"},
      {{{"rope_scaling", {{"type", "su"}, {"factor", 4.0}}}}, "rope_scaling.type is \"su\""},
      {{{"rope_scaling", {{"type", "linear"}}}}, "rope_scaling.factor is missing"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", 0}}}}, "factor is 0; allowed: a positive"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", "2"}}}}, "factor is \"2\""},
      {{{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}}},
       "original_max_position_embeddings is missing"},
      {{{"rope_scaling",
         {{"rope_type", "llama3"},
          {"factor", 8},
          {"low_freq_factor", 4},
          {"high_freq_factor", 4},
          {"original_max_position_embeddings", 512}}}},
       "above low_freq_factor"},
      {{{"rope_scaling", "linear"}}, "rope_scaling is string; allowed: an object"},
      {{{"rope_theta", -1}}, "rope_theta is -1; allowed: a positive number"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
      {{{"rope_parameters", {{"partial_rotary_factor", 0.5}}}},
       "rope_parameters.partial_rotary_factor"},
      {{{"rope_parameters",
         {{"full_attention", {{"rope_type", "default"}}},
          {"sliding_attention", {{"rope_type", "default"}}}}}},
       "one set of parameters for all layers"},
  };
  for (const auto& [patch, rule] : cases) EXPECT_THAT(refusal(patch), HasSubstr(rule)) << patch;
}

TEST_F(ModelConfigTest, QuantisedCheckpointsAreRefused) {
  EXPECT_THAT(refusal({{"quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}}}),
              testing::AllOf(HasSubstr("quantization_config (method \"gptq\")"),
                             HasSubstr("requantising would undo")));
  EXPECT_THAT(refusal({{"quantization_config", json::object()}}), HasSubstr("quantised"));
  EXPECT_THAT(refusal({{"compression_config", json::object()}}), HasSubstr("quantised"));
  for (const char* dtype : {"int8", "uint8", "float8_e4m3fn", "torch.float8_e5m2", "int4"}) {
    EXPECT_THAT(refusal({{"torch_dtype", dtype}}), HasSubstr("quantised")) << dtype;
  }
  EXPECT_NO_THROW(patched({{"quantization_config", nullptr}}));
}

TEST_F(ModelConfigTest, WrongFieldsAreNamedWithWhatIsAllowed) {
  const std::vector<std::pair<json, std::string>> cases = {
      {{{"hidden_size", "64"}}, "hidden_size is \"64\"; allowed: an integer from 1"},
      {{{"hidden_size", 64.0}}, "hidden_size is 64.0; allowed: an integer"},
      {{{"hidden_size", 0}}, "hidden_size is 0; allowed: an integer from 1"},
      {{{"hidden_size", -64}}, "hidden_size is -64"},
      {{{"hidden_size", 18446744073709551615u}}, "hidden_size is 18446744073709551615"},
      {{{"num_hidden_layers", nullptr}}, "num_hidden_layers is missing"},
      {{{"num_hidden_layers", true}}, "num_hidden_layers is true"},
      {{{"vocab_size", json::array({1})}}, "vocab_size is [1]"},
      {{{"hidden_size", 68}}, "hidden_size is 68; allowed: a multiple of num_attention_heads, 8"},
      {{{"num_key_value_heads", 3}}, "num_key_value_heads is 3; allowed: a divisor"},
      {{{"num_key_value_heads", 16}}, "num_key_value_heads is 16"},
      {{{"head_dim", 7}}, "head_dim is 7"},
      {{{"rms_norm_eps", "1e-5"}}, "rms_norm_eps is \"1e-5\"; allowed: a finite number"},
      {{{"rms_norm_eps", 0}}, "rms_norm_eps is 0; allowed: a positive number"},
      {{{"tie_word_embeddings", 1}}, "tie_word_embeddings is 1; allowed: true or false"},
      {{{"hidden_act", 3}}, "hidden_act is 3; allowed: a string"},
      {{{"torch_dtype", 16}}, "torch_dtype is 16; allowed: a string"},
      {{{"torch_dtype", "float128"}}, "allowed: bfloat16, float16, float32, float64"},
      {{{"eos_token_id", "2"}}, "eos_token_id is \"2\"; allowed: a token id or a list"},
      {{{"eos_token_id", json::array({2, -1})}}, "eos_token_id is [2,-1]"},
      {{{"eos_token_id", json::array({true})}}, "eos_token_id"},
      {{{"sliding_window", 0}}, "sliding_window is 0"},
      {{{"model_type", 7}}, "model_type is 7"},
      {{{"text_config", json::object()}}, "multimodal"},
  };
  for (const auto& [patch, rule] : cases) {
    const auto message = refusal(patch);
    EXPECT_THAT(message, HasSubstr(rule)) << patch;
    EXPECT_THAT(message, HasSubstr("config.json")) << patch;
  }
  for (const char* key :
       {"model_type", "hidden_size", "num_hidden_layers", "intermediate_size",
        "num_attention_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"}) {
    EXPECT_THAT(message_of<InputError>([&] { without(key); }),
                HasSubstr(std::string(key) + " is missing"));
  }
}

TEST_F(ModelConfigTest, BrokenFilesAreNamed) {
  EXPECT_THAT(message_of<InputError>([&] { ModelConfig::read(folder()); }),
              HasSubstr("config.json"));
  put("config.json", "{");
  EXPECT_THAT(message_of<InputError>([&] { ModelConfig::read(folder()); }), HasSubstr("not JSON"));
  put("config.json", R"({"hidden_size":1,"hidden_size":2})");
  EXPECT_THAT(message_of<InputError>([&] { ModelConfig::read(folder()); }),
              HasSubstr("stands twice"));
}

TEST_F(ModelConfigTest, TheTypeOfOtherFamiliesCanStillBeRead) {
  put("config.json", R"({"model_type":"gpt2","n_embd":768})");
  EXPECT_EQ(read_model_type(folder()), "gpt2");
  EXPECT_THROW(ModelConfig::read(folder()), InputError);
}

}  // namespace
}  // namespace mrp::io
