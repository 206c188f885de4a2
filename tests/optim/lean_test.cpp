// The lean optimiser: 8-bit moments, and units updated one after another inside the backward, which
// the tests play by writing a unit's gradient and calling reduce().
#include <cmath>
#include <limits>
#include <random>

#include "optim/optimizer.h"
#include "shard/bfloat16_device.h"
#include "support/catch.h"
#include "support/deferred_backend.h"

namespace {

using backend::DType;
using optim::Optimizer;
using optim::OptimizerConfig;
using shard::Parameters;

constexpr int64_t kCounts[2] = {300, 700};
using Gradients = std::vector<std::vector<float>>;  // Per unit.

shard::Layout make_layout() {
  shard::Layout layout;
  layout.units = {{.name = "first"}, {.name = "second"}};
  for (size_t u = 0; u < 2; ++u)
    shard::add_tensor(layout.units[u], "a", {kCounts[u]}, {.standard_deviation = 0.1});
  return layout;
}

backend::Backend make_backend(DType compute_dtype) {
  backend::Backend backend = std::move(backend::make_cpu_backends({.threads_per_rank = 1}).front());
  if (compute_dtype == DType::kBfloat16)
    backend.device = std::make_unique<shard_test::Bfloat16Device>(std::move(backend.device));
  return backend;
}

class Rig {
 public:
  explicit Rig(const OptimizerConfig& config, Parameters::Memory memory = Parameters::Memory::kLean,
               DType compute_dtype = DType::kFloat32)
      : backend_(make_backend(compute_dtype)),
        parameters(layout_, backend_, {.memory = memory}),
        optimizer(config, parameters, backend_) {
    parameters.initialize(1);
  }

  // As a backward does it: the last unit first.
  Optimizer::StepReport step(int64_t step, const Gradients& gradients) {
    optimizer.begin_step(step);
    for (int64_t unit = 1; unit >= 0; --unit) {
      write_gradient(unit, gradients[size_t(unit)]);
      parameters.reduce(unit);
    }
    optimizer.end_step();
    return optimizer.take_report();
  }

  void write_gradient(int64_t unit, const std::vector<float>& values) {
    const backend::Tensor whole = parameters.gradient(unit, "a");
    float* const target = whole.as<float>();
    for (size_t i = 0; i < values.size(); ++i) target[i] += values[i];
  }

  std::vector<float> masters(int64_t unit) {
    std::vector<float> values(size_t(kCounts[unit]));
    parameters.copy_masters_to_host(unit, 0, values);
    return values;
  }

 private:
  const shard::Layout layout_ = make_layout();
  backend::Backend backend_;

 public:
  Parameters parameters;
  Optimizer optimizer;
};

Gradients random_gradients(uint64_t seed, float scale = 1) {
  std::mt19937_64 generator(seed);
  Gradients gradients;
  for (const int64_t count : kCounts) {
    auto& unit = gradients.emplace_back();
    for (int64_t i = 0; i < count; ++i)
      unit.push_back(scale * float(double(generator() >> 11) * 0x1p-52 - 1));
  }
  return gradients;
}

double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double(value) * double(value);
  return std::sqrt(sum);
}

std::vector<float> difference(std::vector<float> a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return a;
}

OptimizerConfig config_with(double norm_max) {
  return {.learning_rate = 0.01,
          .weight_decay = 0,
          .gradient_norm_max = norm_max,
          .schedule = {.kind = "constant", .warmup_steps = 0}};
}

}  // namespace

// Minimises |x - target|^2 with noise: what 8 bits cost must be small beside the noise.
TEST_CASE("lean: 8-bit moments train as well as fp32 moments", "[lean]") {
  const auto loss_after = [&](Parameters::Memory memory) {
    Rig rig(config_with(0), memory);
    const Gradients targets = random_gradients(77);
    for (int64_t step = 0; step < 300; ++step) {
      Gradients gradients = random_gradients(uint64_t(step), 0.5f);
      for (int64_t unit = 0; unit < 2; ++unit) {
        const auto at = rig.masters(unit);
        for (size_t i = 0; i < at.size(); ++i)
          gradients[size_t(unit)][i] += at[i] - targets[size_t(unit)][i];
      }
      rig.step(step, gradients);
    }
    double loss = 0;
    for (int64_t unit = 0; unit < 2; ++unit)
      loss += std::pow(norm_of(difference(rig.masters(unit), targets[size_t(unit)])), 2);
    return loss;
  };
  const double lean = loss_after(Parameters::Memory::kLean);
  const double standard = loss_after(Parameters::Memory::kStandard);
  REQUIRE(standard < 20);  // From about 330.
  REQUIRE(lean < 1.1 * standard);
}

TEST_CASE("lean: the gradient buffer is of one unit at a time", "[lean]") {
  Rig rig(config_with(0));
  rig.optimizer.begin_step(0);
  rig.write_gradient(1, std::vector<float>(size_t(kCounts[1]), 1.0f));
  REQUIRE(rig.parameters.gradient_shard(0).data == rig.parameters.gradient_shard(1).data);
  rig.parameters.reduce(1);
  const backend::Tensor gradient = rig.parameters.gradient(0, "a");
  for (const float value : gradient.span<float>()) REQUIRE(value == 0);
}

// First updates of AdamW have the size of the learning rate whatever the gradient is, so what is
// looked at is the mean m: after one step from nothing it is (1 - beta1) times the clipped
// gradient.
TEST_CASE("lean: what is not known yet of the norm is taken from the step before", "[lean]") {
  constexpr double kNormMax = 1;
  Rig rig(config_with(kNormMax));
  const auto clipped_norm = [&](int64_t unit) {
    std::vector<float> m(size_t(kCounts[unit]));
    rig.optimizer.copy_moment_to_host(0, unit, 0, m);
    return norm_of(m) / 0.1;
  };
  const Gradients gradients = random_gradients(3);
  const double first = norm_of(gradients[0]), second = norm_of(gradients[1]);
  const double whole = std::hypot(first, second);
  const auto report = rig.step(0, gradients);
  REQUIRE(report.gradient_norm == Approx(whole).epsilon(1e-5));
  // The second unit comes first and knows of nothing but itself; the first knows both. The codes
  // of m have up to 6 % of an element.
  REQUIRE(clipped_norm(1) == Approx(1.0).epsilon(0.03));
  REQUIRE(clipped_norm(0) == Approx(first / whole).epsilon(0.03));
}

TEST_CASE("lean: steady gradients are clipped by their global norm", "[lean]") {
  const Gradients gradients = random_gradients(4);
  Rig lean(config_with(1));
  Rig standard(config_with(1), Parameters::Memory::kStandard);
  for (int64_t step = 0; step < 30; ++step) {
    lean.step(step, gradients);
    standard.step(step, gradients);
  }
  for (int64_t unit = 0; unit < 2; ++unit) {
    std::vector<float> m(size_t(kCounts[unit])), expected(m.size());
    lean.optimizer.copy_moment_to_host(0, unit, 0, m);
    standard.optimizer.copy_moment_to_host(0, unit, 0, expected);
    REQUIRE(norm_of(m) == Approx(norm_of(expected)).epsilon(0.02));
  }
}

TEST_CASE("lean: a spike is clipped in the step in which it comes", "[lean]") {
  Rig rig(config_with(1));
  for (int64_t step = 0; step < 5; ++step) rig.step(step, random_gradients(uint64_t(step), 0.01f));
  std::vector<float> before(static_cast<size_t>(kCounts[0])), after(before.size());
  rig.optimizer.copy_moment_to_host(0, 0, 0, before);
  Gradients gradients = random_gradients(9, 0.01f);
  for (float& value : gradients[0]) value *= 1e6f;
  rig.step(5, gradients);
  rig.optimizer.copy_moment_to_host(0, 0, 0, after);
  REQUIRE(norm_of(after) < norm_of(before) + 0.11);  // (1 - beta1) times the bound of 1.
}

TEST_CASE("lean: a gradient that is not finite stops the units after it, once", "[lean]") {
  Rig rig(config_with(1));
  REQUIRE_FALSE(rig.step(0, random_gradients(1)).skipped);
  const auto first = rig.masters(0), second = rig.masters(1);
  Gradients gradients = random_gradients(2);
  gradients[1][77] = std::numeric_limits<float>::quiet_NaN();  // Of the unit that comes first.
  REQUIRE(rig.step(1, gradients).skipped);
  REQUIRE(rig.optimizer.update_count() == 1);
  REQUIRE((rig.masters(0) == first));
  REQUIRE((rig.masters(1) == second));

  REQUIRE_FALSE(rig.step(2, random_gradients(3)).skipped);
  REQUIRE((rig.masters(0) != first));
  REQUIRE((rig.masters(1) != second));
}

TEST_CASE("lean: moments come back from a checkpoint with the same bits", "[lean]") {
  const DType dtype = GENERATE(DType::kFloat32, DType::kBfloat16);
  Rig straight(config_with(1), Parameters::Memory::kLean, dtype);
  Rig resumed(config_with(1), Parameters::Memory::kLean, dtype);
  for (Rig* const rig : {&straight, &resumed}) rig->optimizer.set_rounding_seed(3, 4);
  for (int64_t step = 0; step < 4; ++step) straight.step(step, random_gradients(uint64_t(step)));
  for (int64_t unit = 0; unit < 2; ++unit) {
    resumed.parameters.copy_masters_from_host(unit, 0, straight.masters(unit));
    for (int64_t moment = 0; moment < 2; ++moment) {
      std::vector<float> values(size_t(kCounts[unit]));
      straight.optimizer.copy_moment_to_host(moment, unit, 0, values);
      // In pieces that are no multiples of a block.
      const auto all = std::span<const float>(values);
      resumed.optimizer.copy_moment_from_host(moment, unit, 0, all.first(100));
      resumed.optimizer.copy_moment_from_host(moment, unit, 100, all.subspan(100));
    }
  }
  resumed.optimizer.set_update_count(straight.optimizer.update_count());
  resumed.optimizer.set_gradient_squares(straight.optimizer.gradient_squares());
  for (Rig* const rig : {&straight, &resumed}) {
    for (int64_t step = 4; step < 8; ++step)
      rig->step(step, random_gradients(uint64_t(step), 0.01f));
  }
  for (int64_t unit = 0; unit < 2; ++unit)
    REQUIRE((straight.masters(unit) == resumed.masters(unit)));
}

// One update of a tenth of the spacing of bf16, from the same masters on every node.
TEST_CASE("lean: nodes round differently, and their mean is the exact value", "[lean]") {
  OptimizerConfig config = config_with(0);
  config.learning_rate = 5e-5;
  const Gradients gradients = random_gradients(5);
  Rig exact(config);
  std::vector<std::vector<float>> found;
  constexpr int kNodes = 64;
  for (uint64_t node = 0; node < kNodes; ++node) {
    Rig rig(config, Parameters::Memory::kLean, DType::kBfloat16);
    if (node == 0) {
      for (const int64_t unit : {0, 1})
        exact.parameters.copy_masters_from_host(unit, 0, rig.masters(unit));
    }
    rig.optimizer.set_rounding_seed(7, node);
    rig.step(0, gradients);
    found.push_back(rig.masters(1));
  }
  exact.step(0, gradients);
  const std::vector<float> expected = exact.masters(1);
  REQUIRE((found[0] != found[1]));
  std::vector<float> mean(expected.size());
  for (const auto& masters : found) {
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += masters[i] / kNodes;
  }
  // Independent errors: an eighth of one node's. Were all alike, the same.
  const double one = norm_of(difference(found[0], expected));
  REQUIRE(one > 0);
  REQUIRE(norm_of(difference(mean, expected)) < 0.16 * one);
  // Another run's seed rounds differently too.
  Rig other(config, Parameters::Memory::kLean, DType::kBfloat16);
  other.optimizer.set_rounding_seed(8, 0);
  other.step(0, gradients);
  REQUIRE((other.masters(1) != found[0]));
}

namespace {

// Three steps over six units, as a model makes them, whose gradients are left to the streams: what
// the weights were in every forward pass, and what the updates reported.
std::vector<float> train_beside(backend::Backend backend, int gradients) {
  constexpr int64_t kUnits = 6, kCount = 300;
  shard::Layout layout;
  for (int64_t u = 0; u < kUnits; ++u) {
    layout.units.push_back({.name = "unit" + std::to_string(u)});
    shard::add_tensor(layout.units.back(), "a", {kCount}, {.standard_deviation = 0.1});
  }
  Parameters parameters(layout, backend,
                        {.memory = Parameters::Memory::kLean, .lean_gradients = gradients});
  Optimizer optimizer(config_with(1), parameters, backend);
  parameters.initialize(1, 1);
  backend::Stream& compute = backend.device->compute_stream();
  std::vector<std::vector<float>> sources, seen;
  for (int64_t i = 0; i < 3 * kUnits; ++i) {
    sources.push_back(random_gradients(uint64_t(i), float(i + 1))[0]);
    seen.emplace_back(size_t(kCount));
  }
  std::vector<float> all;
  for (int64_t step = 0; step < 3; ++step) {
    optimizer.begin_step(step);
    for (int64_t u = 0; u < kUnits; ++u) {
      parameters.gather(u);
      const backend::Tensor weight = parameters.weight(u, "a");
      backend.device->copy(seen[size_t(step * kUnits + u)].data(), weight.data, weight.byte_count(),
                           compute);
      parameters.release(u);
    }
    for (int64_t u = kUnits - 1; u >= 0; --u) {
      parameters.gather(u);
      const backend::Tensor target = parameters.gradient_target(u, "a").tensor;
      backend.device->copy(target.data, sources[size_t(step * kUnits + u)].data(),
                           target.byte_count(), compute);
      parameters.release(u);
      parameters.reduce(u);
    }
    optimizer.end_step();
    all.push_back(float(optimizer.take_report().gradient_norm));
  }
  backend.device->synchronize(compute);
  for (const auto& weights : seen) all.insert(all.end(), weights.begin(), weights.end());
  return all;
}

}  // namespace

TEST_CASE("lean: an update beside the backward is the same update", "[lean]") {
  const std::vector<float> expected = train_beside(make_backend(DType::kFloat32), 1);
  for (const auto eagerness :
       {test::Eagerness::kCompute, test::Eagerness::kOthers, test::Eagerness::kRandom}) {
    for (const uint64_t seed : {1, 2, 3}) {
      INFO("eagerness " << int(eagerness) << ", seed " << seed);
      auto backends = test::make_deferred_backends(1, eagerness, seed);
      REQUIRE((train_beside(std::move(backends.front()), 2) == expected));
    }
  }
}

TEST_CASE("lean: sgd is refused", "[lean]") {
  REQUIRE_THROWS_AS(Rig({.kind = "sgd"}), base::Error);
}
