// Ways to compute the same thing that must agree: with the same bits where the same operations run
// on the same numbers, to rounding where sums are cut elsewhere.
#include <functional>

#include "model/fixture.h"

namespace {

using model_test::Batch;
using model_test::random_batch;
using model_test::Rig;
using model_test::small_config;
using model_test::Values;

constexpr double kRounding = 2e-5;

struct Outcome {
  model::LossSums losses;
  Values gradients;
};

Outcome run(const model::TransformerOptions& options, const Batch& batch) {
  Rig rig(small_config(), options);
  rig.transformer->forward_backward(batch.view(), 1.0f / float(batch.counted()));
  return {rig.transformer->take_losses(), rig.gradients()};
}

void require_close(const Outcome& actual, const Outcome& expected) {
  REQUIRE(actual.losses.count == expected.losses.count);
  REQUIRE(actual.losses.loss == Approx(expected.losses.loss).epsilon(1e-6));
  REQUIRE(actual.losses.z_loss == Approx(expected.losses.z_loss).epsilon(1e-6));
  model_test::require_close(actual.gradients, expected.gradients, kRounding);
}

}  // namespace

TEST_CASE("all recompute policies give the same bits", "[equivalence]") {
  const Batch batch = random_batch(small_config(), 2, 1);
  const Outcome expected = run({.rows = 2, .recompute = model::Recompute::kNone}, batch);
  for (auto recompute :
       {model::Recompute::kCheap, model::Recompute::kGateUp, model::Recompute::kFull}) {
    INFO("recompute " << int(recompute));
    const Outcome actual = run({.rows = 2, .recompute = recompute}, batch);
    REQUIRE(actual.losses.loss == expected.losses.loss);
    REQUIRE(actual.losses.z_loss == expected.losses.z_loss);
    REQUIRE(actual.gradients == expected.gradients);
  }
}

TEST_CASE("the chunks of the head agree", "[equivalence]") {
  const Batch batch = random_batch(small_config(), 2, 2);
  const Outcome expected = run({.rows = 2, .head_chunk_tokens = 1000}, batch);
  for (int64_t chunk : {1, 5, 31, 32}) {
    INFO("chunk of " << chunk);
    require_close(run({.rows = 2, .head_chunk_tokens = chunk}, batch), expected);
  }
}

TEST_CASE("micro-batches accumulate to the whole batch", "[equivalence]") {
  const model::ModelConfig config = small_config();
  const Batch batch = random_batch(config, 6, 3);
  const Outcome expected = run({.rows = 6}, batch);
  for (int64_t rows : {1, 2, 3}) {
    INFO("rows " << rows);
    Rig rig(config, {.rows = rows});
    for (int64_t first = 0; first < 6; first += rows) {
      rig.transformer->forward_backward(batch.rows(first, rows, config.sequence_length).view(),
                                        1.0f / float(batch.counted()));
    }
    require_close({rig.transformer->take_losses(), rig.gradients()}, expected);
    REQUIRE(rig.transformer->take_losses().loss == 0);
    REQUIRE(rig.transformer->take_losses().count == 0);
  }
}

TEST_CASE("what an older step left in the gradients does not matter", "[equivalence]") {
  const model::ModelConfig config = small_config();
  const Batch batch = random_batch(config, 2, 3);
  const Outcome expected = run({.rows = 2}, batch);
  Rig rig(config, {.rows = 2});
  for (int64_t u = 0; u < int64_t(rig.layout.units.size()); ++u) {
    const std::vector<float> garbage(size_t(rig.layout.units[size_t(u)].element_count),
                                     std::numeric_limits<float>::quiet_NaN());
    rig.parameters.copy_shard_from_host(rig.parameters.gradient_shard(u), u, 0, garbage);
  }
  rig.transformer->forward_backward(batch.view(), 1.0f / float(batch.counted()));
  REQUIRE(rig.gradients() == expected.gradients);
  // The same batch again, as a micro-batch of the same step, then as one of the next.
  rig.transformer->forward_backward(batch.view(), 1.0f / float(batch.counted()));
  REQUIRE(rig.gradients() != expected.gradients);
  rig.parameters.discard_gradients();
  rig.transformer->forward_backward(batch.view(), 1.0f / float(batch.counted()));
  REQUIRE(rig.gradients() == expected.gradients);
}

// Rotary embedding sees only differences of positions, so a document in the middle of a row is the
// same as at its start.
TEST_CASE("packed documents are the same as rows of their own", "[equivalence]") {
  const model::ModelConfig config = small_config();
  const int64_t T = config.sequence_length, first_length = 6;
  Batch packed = random_batch(config, 1, 4);
  Batch apart;
  apart.tokens.assign(size_t(2 * T), 0);
  apart.targets.assign(size_t(2 * T), -1);
  apart.document_starts.assign(size_t(2 * T), 0);
  for (int64_t t = 0; t < T; ++t) {
    const bool is_second = t >= first_length;
    const size_t place = size_t(is_second ? T + t - first_length : t);
    packed.document_starts[size_t(t)] = is_second ? int32_t(first_length) : 0;
    apart.tokens[place] = packed.tokens[size_t(t)];
    apart.targets[place] = packed.targets[size_t(t)];
  }
  REQUIRE(apart.counted() == packed.counted());
  const Outcome expected = run({.rows = 2}, apart);
  require_close(run({.rows = 1}, packed), expected);

  // The test could not fail if documents did not matter.
  std::fill(packed.document_starts.begin(), packed.document_starts.end(), 0);
  REQUIRE(std::abs(run({.rows = 1}, packed).losses.loss - expected.losses.loss) > 1e-4);
}

TEST_CASE("evaluation finds the losses of training and leaves gradients and sums alone",
          "[equivalence]") {
  const model::ModelConfig config = small_config();
  const Batch batch = random_batch(config, 2, 5), other = random_batch(config, 2, 6);
  Rig rig(config, {.rows = 2, .head_chunk_tokens = 9});
  rig.transformer->forward_backward(batch.view(), 1);
  const Values gradients = rig.gradients();
  const model::LossSums evaluated = rig.transformer->evaluate(batch.view());
  rig.transformer->evaluate(other.view());
  REQUIRE(rig.gradients() == gradients);
  const model::LossSums trained = rig.transformer->take_losses();
  REQUIRE(trained.loss == evaluated.loss);
  REQUIRE(trained.z_loss == evaluated.z_loss);
  REQUIRE(trained.count == evaluated.count);
}

TEST_CASE("next logits give the loss that evaluation finds", "[equivalence]") {
  const model::ModelConfig config = small_config();
  Rig rig(config, {.rows = 2});
  Batch batch = random_batch(config, 2, 7);
  std::fill(batch.document_starts.begin(), batch.document_starts.end(), 0);
  for (int64_t length : {int64_t{1}, int64_t{5}, config.sequence_length}) {
    const int32_t target = int32_t(length);
    std::fill(batch.targets.begin(), batch.targets.end(), -1);
    batch.targets[size_t(length - 1)] = target;
    const double expected = rig.transformer->evaluate(batch.view()).loss;

    std::vector<float> logits(size_t(config.vocabulary));
    rig.transformer->next_logits(std::span(batch.tokens).first(size_t(length)), logits);
    double sum = 0;
    for (float logit : logits) sum += std::exp(double(logit) - double(logits[size_t(target)]));
    INFO("length " << length);
    REQUIRE(std::log(sum) == Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("a token outside the vocabulary is refused", "[equivalence]") {
  const model::ModelConfig config = small_config();
  Rig rig(config, {.rows = 1});
  for (int32_t wrong : {-1, 37, 1 << 30}) {
    Batch batch = random_batch(config, 1, 8);
    batch.tokens[3] = wrong;
    REQUIRE_THROWS_AS(rig.transformer->forward_backward(batch.view(), 1), base::Error);
  }
  Batch batch = random_batch(config, 1, 8);
  batch.targets[3] = -2;
  REQUIRE_THROWS_AS(rig.transformer->evaluate(batch.view()), base::Error);
}
