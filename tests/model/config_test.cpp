// Counts against published figures of INTELLECT-1 and Llama 3, and the layout against its
// description.
#include "model/config.h"

#include "model/fixture.h"

namespace {

model::ModelConfig intellect_1() {
  return {.vocabulary = 128256,
          .width = 4096,
          .layers = 42,
          .heads = 32,
          .kv_heads = 8,
          .head_size = 128,
          .feed_forward = 14336,
          .sequence_length = 8192};
}

}  // namespace

TEST_CASE("INTELLECT-1 has its published size", "[config]") {
  const model::ModelConfig config = intellect_1();
  REQUIRE(model::parameter_count(config) == 10'211'381'248);
  REQUIRE(model::parameter_count_without_embedding(config) == 9'686'044'672);
  REQUIRE(model::flops_per_token_palm(config) == Approx(75.03e9).epsilon(1e-4));
  REQUIRE(model::flops_per_token_causal(config) == Approx(66.57e9).epsilon(1e-4));
}

TEST_CASE("Llama 3 8B has its published size", "[config]") {
  model::ModelConfig config = intellect_1();
  config.layers = 32;
  REQUIRE(model::parameter_count(config) == 8'030'261'248);
}

TEST_CASE("the layout has the units and tensors of its description", "[config]") {
  const model::ModelConfig config = model_test::small_config();
  const shard::Layout layout = model::make_layout(config);
  REQUIRE(layout.units.size() == 5);
  REQUIRE(layout.units[0].name == "embedding");
  REQUIRE(layout.units[1].name == "blocks.0");
  REQUIRE(layout.units[4].name == "head");
  const shard::Unit& block = layout.units[2];
  REQUIRE(block.find("qkv").shape == backend::Shape{80, 24});
  REQUIRE(block.find("out").shape == backend::Shape{24, 40});
  REQUIRE(block.find("up").offset == block.find("gate").offset + 28 * 24);
  REQUIRE(block.find("down").shape == backend::Shape{24, 28});
  REQUIRE(block.find("down").initializer.standard_deviation == 0.02 / std::sqrt(2.0 * 2));
  REQUIRE(block.find("gate").initializer.standard_deviation == 0.02);
  REQUIRE(layout.units[4].find("head").initializer.cut == 3);
}

TEST_CASE("heads that do not fit are refused with a hint", "[config]") {
  model::ModelConfig config = model_test::small_config();
  model::validate(config);
  config.kv_heads = 3;
  REQUIRE_THROWS_AS(model::validate(config), base::Error);
  config.kv_heads = 2;
  config.head_size = 9;
  REQUIRE_THROWS_AS(model::validate(config), base::Error);
}
