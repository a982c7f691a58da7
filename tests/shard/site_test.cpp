#include "shard/site.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/error.hpp"

namespace mrp::shard {
namespace {

io::ModelConfig small_config() {
  io::ModelConfig config;
  config.layers = 3;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.heads = 4;
  config.head_dim = 16;
  return config;
}

const std::vector<std::string> kAllModules = {
    "stream.output", "down_proj.output", "down_proj.input", "gate_up.input",
    "o_proj.output", "o_proj.input",     "qkv.input"};

TEST(SiteTest, NameAndParseAreInverse) {
  for (const Site& site : make_sites(kAllModules, {0, 1, 2}, small_config())) {
    EXPECT_EQ(Site::parse(site.name()), site);
  }
  EXPECT_EQ(Site::parse("layers.12.down_proj.input").name(), "layers.12.down_proj.input");
}

TEST(SiteTest, ParseRefusesWhatIsNoSiteAndListsWhatIs) {
  for (const std::string text :
       {"", "layers", "layers.", "layers.1", "layers.1.", "layers.-1.o_proj.input",
        "layers.x.o_proj.input", "layers.1x.o_proj.input", "layers.1xo_proj.input",
        "layers.1.o_proj", "layers.1.o_proj.side", "layers.1.qkv.output", "layers.1.stream.input",
        "model.layers.1.o_proj.input", "layers.99999999999999999999.o_proj.input",
        "layers.1.o_proj.input "}) {
    try {
      Site::parse(text);
      ADD_FAILURE() << text;
    } catch (const dist::UsageError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("down_proj.output, stream.output"));
    }
  }
}

TEST(SiteTest, MakeSitesGoesInOrderOfTheForwardPassWithoutRepeats) {
  std::vector<std::string> names;
  for (const Site& site : make_sites(kAllModules, {1, 0, 1}, small_config())) {
    names.push_back(site.name());
  }
  EXPECT_THAT(names, testing::ElementsAre("layers.0.qkv.input", "layers.0.o_proj.input",
                                          "layers.0.o_proj.output", "layers.0.gate_up.input",
                                          "layers.0.down_proj.input", "layers.0.down_proj.output",
                                          "layers.0.stream.output", "layers.1.qkv.input",
                                          "layers.1.o_proj.input", "layers.1.o_proj.output",
                                          "layers.1.gate_up.input", "layers.1.down_proj.input",
                                          "layers.1.down_proj.output", "layers.1.stream.output"));
}

TEST(SiteTest, MakeSitesRefusesUnknownModulesAndLayers) {
  EXPECT_THROW(make_sites({"o_proj"}, {0}, small_config()), dist::UsageError);
  EXPECT_THROW(make_sites({"o_proj.input"}, {3}, small_config()), dist::UsageError);
  EXPECT_THROW(make_sites({"o_proj.input"}, {-1}, small_config()), dist::UsageError);
}

TEST(SiteTest, WidthAndSplit) {
  const io::ModelConfig config = small_config();
  EXPECT_EQ(Site::parse("layers.0.o_proj.input").width(config), 64);
  EXPECT_EQ(Site::parse("layers.0.down_proj.input").width(config), 48);
  for (const char* name : {"layers.0.qkv.input", "layers.0.o_proj.output", "layers.0.gate_up.input",
                           "layers.0.down_proj.output", "layers.0.stream.output"}) {
    EXPECT_EQ(Site::parse(name).width(config), 32) << name;
    EXPECT_FALSE(Site::parse(name).is_split()) << name;
  }
  EXPECT_TRUE(Site::parse("layers.0.o_proj.input").is_split());
  EXPECT_TRUE(Site::parse("layers.0.down_proj.input").is_split());
}

}  // namespace
}  // namespace mrp::shard
