// The whole model on CUDA against the CPU: loss, gradients, and a stretch of training. bf16 keeps 8
// bits of a number, so a gradient that went through L blocks is off by about sqrt(L) * 2^-8 of its
// length; what is compared is the distance of whole tensors, not of elements.
#include "cuda/model_rig.h"

namespace {

using cuda_test::Batch;
using cuda_test::distance;
using cuda_test::periodic_batch;
using cuda_test::Rig;
using cuda_test::Setup;
using cuda_test::tiny_config;
using model::Recompute;
using shard::Parameters;

backend::Backend make_cpu() {
  return std::move(backend::make_cpu_backends({.threads_per_rank = 2}).front());
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

TEST_CASE("cuda model: weight gradients on a stream of their own change no bits", "[model]") {
  Setup setup;
  Rig expected(cuda_test::make_device_under_test(), setup);
  setup.options.weight_gradient_stream = true;
  Rig found(cuda_test::make_device_under_test(), setup);
  for (int64_t step = 0; step < 2; ++step) {
    const Batch batch = periodic_batch(uint64_t(step));
    REQUIRE(found.train(step, batch) == expected.train(step, batch));
    REQUIRE((found.gradients() == expected.gradients()));
  }
  REQUIRE((found.masters() == expected.masters()));
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

TEST_CASE("cuda model: with weights that are not finite steps are skipped", "[model]") {
  for (const float bad : {NAN, INFINITY}) {
    for (const auto memory : {Parameters::Memory::kStandard, Parameters::Memory::kLean}) {
      Rig rig(cuda_test::make_device_under_test(),
              {.options = {.rows = 2, .head_chunk_tokens = 64}, .memory = memory});
      rig.fill_masters(bad);
      for (int64_t step = 0; step < 2; ++step) {
        rig.begin_step(step);
        rig.forward_backward(periodic_batch(uint64_t(step)));
        REQUIRE(rig.end_step().report.skipped);
      }
      if (bad != INFINITY) continue;
      for (const auto& [name, values] : rig.masters()) {
        INFO(name);
        REQUIRE(values == std::vector<float>(values.size(), bad));
      }
    }
  }
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
