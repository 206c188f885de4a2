// The whole model on CUDA against the CPU: loss, gradients, and a stretch of training. bf16 keeps 8
// bits of a number, so a gradient that went through L blocks is off by about sqrt(L) * 2^-8 of its
// length; what is compared is the distance of whole tensors, not of elements.
#include <cmath>

#include "cuda/device_under_test.h"
#include "model/fixture.h"
#include "optim/optimizer.h"

namespace {

using model::Recompute;
using model_test::Batch;
using shard::Parameters;

model::ModelConfig tiny_config() {
  return {.vocabulary = 72,
          .width = 64,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 16,
          .feed_forward = 96,
          .sequence_length = 32,
          .rope_base = 1000,
          .z_loss_weight = 1e-3};
}

backend::Backend make_cpu() {
  return std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front());
}

struct Setup {
  model::TransformerOptions options = {.rows = 2, .head_chunk_tokens = 24};
  Parameters::Memory memory = Parameters::Memory::kStandard;
  optim::MomentPlace place = optim::MomentPlace::kDevice;
};

// Parameters, transformer and optimiser on one backend.
class Rig {
 public:
  explicit Rig(backend::Backend chosen, const Setup& setup = {})
      : backend_(std::move(chosen)),
        parameters_(layout_, backend_, setup.memory),
        transformer_(config_, setup.options, parameters_, backend_),
        optimizer_({.learning_rate = 3e-3,
                    .gradient_norm_max = 1,
                    .schedule = {.kind = "constant", .warmup_steps = 4}},
                   parameters_, backend_, setup.place) {
    parameters_.initialize(5);
  }

  model::LossSums forward_backward(const Batch& batch) {
    transformer_.forward_backward(batch.view(), 1.0f / float(batch.counted()));
    return transformer_.take_losses();
  }
  model::LossSums evaluate(const Batch& batch) { return transformer_.evaluate(batch.view()); }
  // Mean loss before the update.
  double train(int64_t step, const Batch& batch) {
    optimizer_.begin_step(step);
    const double loss = forward_backward(batch).loss / double(batch.counted());
    optimizer_.end_step();
    REQUIRE_FALSE(optimizer_.take_report().skipped);
    return loss;
  }

  // Of one tensor: "blocks.1.qkv" and so on.
  model_test::Values gradients() const {
    return read([&](int64_t unit, std::span<float> out) {
      parameters_.copy_shard_to_host(parameters_.gradient_shard(unit), unit, 0, out);
    });
  }
  model_test::Values masters() const {
    return read([&](int64_t unit, std::span<float> out) {
      parameters_.copy_masters_to_host(unit, 0, out);
    });
  }

 private:
  model_test::Values read(const auto& copy) const {
    model_test::Values values;
    for (size_t u = 0; u < layout_.units.size(); ++u) {
      const shard::Unit& unit = layout_.units[u];
      std::vector<float> all(size_t(unit.element_count));
      copy(int64_t(u), all);
      for (const shard::TensorSpec& tensor : unit.tensors) {
        const auto begin = all.begin() + tensor.offset;
        values[tensor.name].assign(begin, begin + tensor.shape.element_count());
      }
    }
    return values;
  }

  const model::ModelConfig config_ = tiny_config();
  const shard::Layout layout_ = model::make_layout(config_);
  backend::Backend backend_;
  Parameters parameters_;
  model::Transformer transformer_;
  optim::Optimizer optimizer_;
};

// Rows of a periodic text, which can be learned, cut at random places.
Batch periodic_batch(uint64_t seed) {
  const model::ModelConfig config = tiny_config();
  std::mt19937_64 random(seed);
  Batch batch;
  for (int row = 0; row < 2; ++row) {
    const auto shift = int32_t(random() % 24);
    for (int32_t t = 0; t < config.sequence_length; ++t) {
      const auto token_at = [&](int32_t position) { return 3 * (position % 24); };
      batch.tokens.push_back(token_at(shift + t));
      batch.targets.push_back(token_at(shift + t + 1));
      batch.document_starts.push_back(t >= 20 ? 20 : 0);
    }
  }
  return batch;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, length = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(double(a[i]) - double(b[i]), 2);
    length += std::pow(double(b[i]), 2);
  }
  return std::sqrt(squares / length);
}

}  // namespace

TEST_CASE("cuda model: loss and gradients are the CPU's", "[model]") {
  const Batch batch = model_test::random_batch(tiny_config(), 2, 1);
  Rig cpu(make_cpu()), device(cuda_test::make_device_under_test());
  const model::LossSums expected = cpu.forward_backward(batch);
  const model::LossSums found = device.forward_backward(batch);
  REQUIRE(found.count == expected.count);
  // Logits of about 1 are rounded to 2^-9; their mean effect on a loss of 4.7 is far smaller.
  REQUIRE(found.loss == Approx(expected.loss).epsilon(2e-3));
  REQUIRE(found.z_loss == Approx(expected.z_loss).epsilon(0.02));
  const model_test::Values gradients = device.gradients();
  for (const auto& [name, values] : cpu.gradients()) {
    INFO(name);
    REQUIRE(distance(gradients.at(name), values) < 0.03);
  }
  REQUIRE(device.evaluate(batch).loss == Approx(cpu.evaluate(batch).loss).epsilon(2e-3));
}

TEST_CASE("cuda model: all recompute policies give the same bits", "[model]") {
  const Batch batch = model_test::random_batch(tiny_config(), 2, 2);
  Setup setup;
  setup.options.recompute = Recompute::kNone;
  Rig keeps_all(cuda_test::make_device_under_test(), setup);
  const double loss = keeps_all.forward_backward(batch).loss;
  const model_test::Values gradients = keeps_all.gradients();
  for (const Recompute recompute : {Recompute::kCheap, Recompute::kGateUp, Recompute::kFull}) {
    INFO("recompute " << int(recompute));
    setup.options.recompute = recompute;
    Rig rig(cuda_test::make_device_under_test(), setup);
    REQUIRE(rig.forward_backward(batch).loss == loss);
    REQUIRE((rig.gradients() == gradients));
  }
}

TEST_CASE("cuda model: training follows the CPU's curve, twice with the same bits", "[model]") {
  Rig cpu(make_cpu()), device(cuda_test::make_device_under_test()),
      again(cuda_test::make_device_under_test());
  double first = 0, last = 0;
  for (int64_t step = 0; step < cuda_test::affordable_steps(); ++step) {
    const Batch batch = periodic_batch(uint64_t(step));
    const double expected = cpu.train(step, batch), found = device.train(step, batch);
    INFO("step " << step << ": " << found << ", CPU " << expected);
    REQUIRE(again.train(step, batch) == found);
    REQUIRE(std::abs(found - expected) < 0.02 + 0.02 * expected);
    if (step == 0) first = expected;
    last = expected;
  }
  REQUIRE(last < 0.9 * first);
  REQUIRE((device.masters() == again.masters()));
}

TEST_CASE("cuda model: lean training learns too", "[model]") {
  Setup setup;
  setup.memory = Parameters::Memory::kLean;
  Rig lean(cuda_test::make_device_under_test(), setup),
      standard(cuda_test::make_device_under_test());
  double lean_loss = 0, standard_loss = 0;
  for (int64_t step = 0; step < cuda_test::affordable_steps(); ++step) {
    const Batch batch = periodic_batch(uint64_t(step));
    lean_loss = lean.train(step, batch);
    standard_loss = standard.train(step, batch);
  }
  REQUIRE(std::abs(lean_loss - standard_loss) < 0.05 + 0.1 * standard_loss);
}

TEST_CASE("cuda model: where the moments lie changes no bits", "[model]") {
  for (const auto memory : {Parameters::Memory::kStandard, Parameters::Memory::kLean}) {
    Setup setup;
    setup.memory = memory;
    Rig on_device(cuda_test::make_device_under_test(), setup);
    setup.place = optim::MomentPlace::kHost;
    Rig on_host(cuda_test::make_device_under_test(), setup);
    for (int64_t step = 0; step < 4; ++step) {
      const Batch batch = periodic_batch(uint64_t(step));
      REQUIRE(on_host.train(step, batch) == on_device.train(step, batch));
    }
    REQUIRE((on_host.masters() == on_device.masters()));
  }
}
