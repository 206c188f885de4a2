// Model and optimiser together: rank counts train alike, and a small model can learn a text by
// heart.
#include <mutex>

#include "model/fixture.h"
#include "optim/optimizer.h"
#include "shard/ranks.h"

namespace {

using model_test::Batch;

constexpr int64_t kSteps = 5;
constexpr int64_t kRows = 12;  // Of a step, over all ranks. Every rank count divides it.

struct Training {
  std::vector<double> losses = std::vector<double>(kSteps, 0);  // Sums over all ranks.
  std::vector<double> norms = std::vector<double>(kSteps, 0);
  std::vector<std::vector<float>> weights;  // Per unit, canonically.
};

// Every rank takes its rows one by one.
void train_rank(backend::Backend& backend, const std::vector<Batch>& steps, Training& training,
                std::mutex& mutex) {
  const model::ModelConfig config = model_test::small_config();
  const shard::Layout layout = model::make_layout(config);
  shard::Parameters parameters(layout, backend);
  parameters.initialize(3);
  model::Transformer transformer(config, {.rows = 1}, parameters, backend);
  optim::Optimizer optimizer(
      {.learning_rate = 0.01, .schedule = {.kind = "constant", .warmup_steps = 2}}, parameters,
      backend);
  const int64_t rows = kRows / backend.communicator->rank_count();
  for (int64_t step = 0; step < kSteps; ++step) {
    const Batch& batch = steps[size_t(step)];
    for (int64_t row = 0; row < rows; ++row) {
      const Batch mine =
          batch.rows(backend.communicator->rank() * rows + row, 1, config.sequence_length);
      transformer.forward_backward(mine.view(), 1.0f / float(batch.counted()));
    }
    const model::LossSums losses = transformer.take_losses();
    const double norm = optimizer.step(step).gradient_norm;
    std::lock_guard lock(mutex);
    training.losses[size_t(step)] += losses.loss / double(batch.counted());
    training.norms[size_t(step)] = norm;
  }
  for (size_t unit = 0; unit < layout.units.size(); ++unit) {
    parameters.copy_masters_to_host(int64_t(unit), 0, training.weights[unit]);
  }
}

Training train(int rank_count, const std::vector<Batch>& steps) {
  const shard::Layout layout = model::make_layout(model_test::small_config());
  Training training;
  for (const shard::Unit& unit : layout.units)
    training.weights.emplace_back(size_t(unit.element_count));
  std::mutex mutex;
  shard_test::run_ranks(
      rank_count, [&](backend::Backend& backend) { train_rank(backend, steps, training, mutex); });
  return training;
}

}  // namespace

TEST_CASE("1, 2, 3 and 4 ranks train alike", "[training]") {
  std::vector<Batch> steps;
  for (uint64_t step = 0; step < kSteps; ++step) {
    steps.push_back(model_test::random_batch(model_test::small_config(), kRows, 100 + step));
  }
  const Training one = train(1, steps);
  REQUIRE(one.losses[4] <
          one.losses[0] - 0.01);  // It trains, so that there is something to agree on.
  for (int rank_count : {2, 3, 4}) {
    INFO("ranks " << rank_count);
    const Training many = train(rank_count, steps);
    for (size_t step = 0; step < kSteps; ++step) {
      REQUIRE(many.losses[step] == Approx(one.losses[step]).epsilon(1e-5));
      REQUIRE(many.norms[step] == Approx(one.norms[step]).epsilon(1e-4));
    }
    for (size_t unit = 0; unit < one.weights.size(); ++unit) {
      REQUIRE(model_test::relative_distance(many.weights[unit], one.weights[unit]).norm < 1e-4);
    }
  }
}

TEST_CASE("a small model learns a text by heart", "[training]") {
  const model::ModelConfig config{.vocabulary = 40,
                                  .width = 32,
                                  .layers = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_size = 8,
                                  .feed_forward = 64,
                                  .sequence_length = 32};
  model_test::Rig rig(config, {.rows = 1});
  optim::Optimizer optimizer({.learning_rate = 0.01,
                              .weight_decay = 0,
                              .schedule = {.kind = "constant", .warmup_steps = 5}},
                             rig.parameters, *rig.backend);
  Batch text = model_test::random_batch(config, 1, 9);
  std::fill(text.document_starts.begin(), text.document_starts.end(), 0);
  std::rotate_copy(text.tokens.begin(), text.tokens.begin() + 1, text.tokens.end(),
                   text.targets.begin());

  for (int64_t step = 0; step < 150; ++step) {
    rig.transformer->forward_backward(text.view(), 1.0f / 32);
    optimizer.step(step);
  }
  REQUIRE(rig.transformer->evaluate(text.view()).loss / 32 < 0.1);

  // It can recite it, too.
  std::vector<float> logits(40);
  for (size_t length = 1; length < 32; ++length) {
    rig.transformer->next_logits(std::span(text.tokens).first(length), logits);
    REQUIRE(std::max_element(logits.begin(), logits.end()) - logits.begin() == text.tokens[length]);
  }
}
