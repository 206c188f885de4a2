// The whole model against tools/reference_model.py, an independent implementation in float64 whose
// gradients were checked by finite differences: losses, the gradient of every tensor, and weights
// after updates.
#include "base/file.h"
#include "base/json.h"
#include "model/fixture.h"
#include "optim/optimizer.h"

namespace {

using base::JsonValue;
using model_test::Batch;
using model_test::Rig;
using model_test::Values;

double number(const JsonValue& object, const char* key) {
  return object.get(key).value().as_number().value();
}

template <class T>
std::vector<T> numbers(const JsonValue& object, const char* key) {
  const JsonValue array = object.get(key).value();
  std::vector<T> values;
  for (int64_t i = 0; i < array.count(); ++i)
    values.push_back(T(array.at(i).value().as_number().value()));
  return values;
}

struct Golden {
  JsonValue file;
  model::ModelConfig config;
  Batch batch;
  Values weights, updated;
  std::map<std::string, std::vector<double>> gradients;
};

Golden read_golden() {
  const std::string text =
      base::make_disk_storage()->read_text(ATOLL_GOLDEN_FOLDER "/tiny_model.json");
  Golden golden{.file = JsonValue::parse(text).value()};
  base::read_config(golden.file.get("config").value(), "tiny_model.json",
                    [&](base::ConfigVisitor& v) { model::describe(v, golden.config); });
  const JsonValue batch = golden.file.get("batch").value();
  golden.batch = {numbers<int32_t>(batch, "tokens"), numbers<int32_t>(batch, "targets"),
                  numbers<int32_t>(batch, "document_starts")};
  const JsonValue tensors = golden.file.get("tensors").value();
  for (int64_t i = 0; i < tensors.count(); ++i) {
    const JsonValue tensor = tensors.at(i).value();
    const std::string name = tensor.get("name").value().as_string().value();
    golden.weights[name] = numbers<float>(tensor, "weight");
    golden.updated[name] = numbers<float>(tensor, "updated");
    golden.gradients[name] = numbers<double>(tensor, "gradient");
  }
  return golden;
}

}  // namespace

TEST_CASE("losses and every gradient agree with the reference", "[golden]") {
  const Golden golden = read_golden();
  for (auto recompute : {model::Recompute::kNone, model::Recompute::kCheap,
                         model::Recompute::kGateUp, model::Recompute::kFull}) {
    INFO("recompute " << int(recompute));
    Rig rig(golden.config, {.rows = 2, .recompute = recompute, .head_chunk_tokens = 7});
    rig.set_weights(golden.weights);
    rig.transformer->forward_backward(golden.batch.view(), 1.0f / float(golden.batch.counted()));

    const model::LossSums losses = rig.transformer->take_losses();
    REQUIRE(losses.count == int64_t(number(golden.file, "count")));
    REQUIRE(losses.loss == Approx(number(golden.file, "loss")).epsilon(1e-6));
    REQUIRE(losses.z_loss == Approx(number(golden.file, "z_loss")).epsilon(1e-6));

    const Values gradients = rig.gradients();
    REQUIRE(gradients.size() == golden.gradients.size());
    for (const auto& [name, expected] : golden.gradients) {
      INFO(name);
      const model_test::Distance distance =
          model_test::relative_distance(gradients.at(name), expected);
      REQUIRE(distance.norm < 1e-5);
      REQUIRE(distance.maximum < 1e-5);
    }
  }
}

TEST_CASE("updates with clipping agree with the reference", "[golden]") {
  const Golden golden = read_golden();
  Rig rig(golden.config, {.rows = 2});
  rig.set_weights(golden.weights);
  const JsonValue settings = golden.file.get("optimizer").value();
  optim::OptimizerConfig config;
  base::read_config(settings, "tiny_model.json",
                    [&](base::ConfigVisitor& v) { optim::describe(v, config); });
  config.schedule = {.kind = "constant", .warmup_steps = 0};
  optim::Optimizer optimizer(config, rig.parameters, *rig.backend);

  const int64_t updates = int64_t(number(golden.file, "updates"));
  for (int64_t step = 0; step < updates; ++step) {
    rig.transformer->forward_backward(golden.batch.view(), 1.0f / float(golden.batch.counted()));
    const optim::Optimizer::StepReport report = optimizer.step(step);
    if (step == 0)
      REQUIRE(report.gradient_norm == Approx(number(golden.file, "gradient_norm")).epsilon(1e-5));
    REQUIRE(report.gradient_norm > 2 * config.gradient_norm_max);  // Otherwise nothing is clipped.
  }
  // What the updates did, not where they ended: the weights themselves would hide it.
  const Values weights = rig.weights();
  for (const auto& [name, expected] : golden.updated) {
    std::vector<double> actual_change, expected_change;
    for (size_t i = 0; i < expected.size(); ++i) {
      actual_change.push_back(double(weights.at(name)[i]) - double(golden.weights.at(name)[i]));
      expected_change.push_back(double(expected[i]) - double(golden.weights.at(name)[i]));
    }
    INFO(name);
    const model_test::Distance distance =
        model_test::relative_distance(actual_change, expected_change);
    REQUIRE(distance.norm < 1e-4);
    REQUIRE(distance.maximum < 1e-4);
  }
}
