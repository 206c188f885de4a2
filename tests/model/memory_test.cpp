// The memory of activations: what is planned is what is allocated, and for the 10B model it is what
// arithmetic by hand gives for each policy.
#include "model/fixture.h"

namespace {

// Bytes that one more block needs.
int64_t bytes_per_block(model::ModelConfig config, model::Recompute recompute) {
  const auto planned = [&] {
    return model::planned_activation_bytes(config, {.rows = 1, .recompute = recompute},
                                           backend::DType::kBfloat16);
  };
  config.layers = 8;
  const int64_t fewer = planned();
  config.layers = 9;
  return planned() - fewer;
}

}  // namespace

TEST_CASE("a transformer allocates what is planned", "[memory]") {
  const model::ModelConfig config = model_test::small_config();
  for (auto recompute : {model::Recompute::kNone, model::Recompute::kCheap,
                         model::Recompute::kGateUp, model::Recompute::kFull}) {
    const model::TransformerOptions options{
        .rows = 3, .recompute = recompute, .head_chunk_tokens = 20};
    const shard::Layout layout = model::make_layout(config);
    const auto backend = model_test::make_backend();
    shard::Parameters parameters(layout, *backend);
    const int64_t before = backend->device->allocated_bytes();
    const model::Transformer transformer(config, options, parameters, *backend);
    const int64_t allocated = backend->device->allocated_bytes() - before;
    INFO("recompute " << int(recompute));
    REQUIRE(allocated ==
            model::planned_activation_bytes(config, options, backend->device->compute_dtype()));
    REQUIRE(allocated == transformer.activation_bytes());
  }
}

// Per token of INTELLECT-1 in bf16: a row of the residual stream 8192 bytes, qkv 12288, gate and up
// 57344, SwiGLU 28672, log-sum-exp 128, a norm's rstd 4.
TEST_CASE("a block of INTELLECT-1 keeps what its policy says", "[memory]") {
  const model::ModelConfig config{.vocabulary = 128256,
                                  .width = 4096,
                                  .layers = 42,
                                  .heads = 32,
                                  .kv_heads = 8,
                                  .head_size = 128,
                                  .feed_forward = 14336,
                                  .sequence_length = 8192};
  const int64_t T = config.sequence_length;
  const int64_t cheap = T * (3 * 8192 + 12288 + 57344 + 128 + 2 * 4);
  REQUIRE(bytes_per_block(config, model::Recompute::kFull) == T * 8192);
  REQUIRE(bytes_per_block(config, model::Recompute::kCheap) == cheap);
  REQUIRE(bytes_per_block(config, model::Recompute::kGateUp) == cheap - T * 57344);
  REQUIRE(bytes_per_block(config, model::Recompute::kNone) == cheap + T * (2 * 8192 + 28672));
}

TEST_CASE("training allocates nothing after the first step", "[memory]") {
  const model::ModelConfig config = model_test::small_config();
  model_test::Rig rig(config, {.rows = 2});
  const model_test::Batch batch = model_test::random_batch(config, 2, 1);
  rig.backend->device->set_steady(true);  // From here on, allocating is a bug that aborts.
  const int64_t before = rig.backend->device->allocated_bytes();
  rig.transformer->forward_backward(batch.view(), 1);
  rig.transformer->evaluate(batch.view());
  rig.transformer->take_losses();
  REQUIRE(rig.backend->device->allocated_bytes() == before);
}
