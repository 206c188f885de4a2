// The optimiser on gradients given by hand, against the published formulas written again in double.
#include "optim/optimizer.h"

#include <cmath>
#include <limits>
#include <random>

#include "support/catch.h"

namespace {

using optim::Optimizer;
using optim::OptimizerConfig;

constexpr int64_t kCounts[2] = {70, 500};         // Elements of the two units.
using Values = std::vector<std::vector<double>>;  // Per unit.

shard::Layout make_layout() {
  shard::Layout layout;
  layout.units = {{.name = "first"}, {.name = "second"}};
  shard::add_tensor(layout.units[0], "a", {kCounts[0]}, {.standard_deviation = 1});
  shard::add_tensor(layout.units[1], "a", {kCounts[1]}, {.standard_deviation = 0.1});
  return layout;
}

struct Rig {
  explicit Rig(const OptimizerConfig& config)
      : backend(std::move(backend::make_cpu_backends({.threads_per_rank = 1}).front())),
        parameters(layout, backend),
        optimizer(config, parameters, backend) {
    parameters.initialize(1);
  }

  Values masters() {
    Values values;
    for (int64_t unit = 0; unit < 2; ++unit) {
      std::vector<float> floats(size_t(kCounts[unit]));
      parameters.copy_masters_to_host(unit, 0, floats);
      values.emplace_back(floats.begin(), floats.end());
    }
    return values;
  }
  Values moment(int64_t which) {
    Values values;
    for (int64_t unit = 0; unit < 2; ++unit) {
      std::vector<float> floats(size_t(kCounts[unit]));
      optimizer.copy_moment_to_host(which, unit, 0, floats);
      values.emplace_back(floats.begin(), floats.end());
    }
    return values;
  }
  void set_gradients(const Values& gradients) {
    for (int64_t unit = 0; unit < 2; ++unit) {
      const std::vector<float> floats(gradients[size_t(unit)].begin(),
                                      gradients[size_t(unit)].end());
      parameters.copy_shard_from_host(parameters.gradient_shard(unit), unit, 0, floats);
    }
  }
  // True: the next micro-batch writes over them. To be asked once per step.
  bool gradients_are_discarded() {
    return !parameters.gradient_target(0, "a").accumulate &&
           !parameters.gradient_target(1, "a").accumulate;
  }

  const shard::Layout layout = make_layout();
  backend::Backend backend;
  shard::Parameters parameters;
  Optimizer optimizer;
};

// Floats, so that both sides see the same numbers.
Values random_gradients(uint64_t seed, double scale) {
  std::mt19937_64 generator(seed);
  Values values;
  for (int64_t count : kCounts) {
    auto& unit = values.emplace_back();
    for (int64_t i = 0; i < count; ++i)
      unit.push_back(float(scale * (double(generator() >> 11) * 0x1p-52 - 1)));
  }
  return values;
}

double norm_of(const Values& gradients) {
  double sum = 0;
  for (const auto& unit : gradients) {
    for (double g : unit) sum += g * g;
  }
  return std::sqrt(sum);
}

// Loshchilov and Hutter, algorithm 2, with clipping by global norm before it.
struct Reference {
  OptimizerConfig config;
  Values p, m, v;
  int64_t updates = 0;

  void step(const Values& gradients, double learning_rate) {
    const double norm_max = config.gradient_norm_max;
    const double scale = norm_max > 0 ? std::min(1.0, norm_max / (norm_of(gradients) + 1e-6)) : 1;
    ++updates;
    for (size_t unit = 0; unit < p.size(); ++unit) {
      for (size_t i = 0; i < p[unit].size(); ++i) {
        const double g = scale * gradients[unit][i];
        double& x = p[unit][i];
        double direction = g;
        if (config.kind == "adamw") {
          m[unit][i] = config.beta1 * m[unit][i] + (1 - config.beta1) * g;
          v[unit][i] = config.beta2 * v[unit][i] + (1 - config.beta2) * g * g;
          const double m_hat = m[unit][i] / (1 - std::pow(config.beta1, double(updates)));
          const double v_hat = v[unit][i] / (1 - std::pow(config.beta2, double(updates)));
          direction = m_hat / (std::sqrt(v_hat) + config.epsilon);
        }
        x -= learning_rate * (direction + config.weight_decay * x);
      }
    }
  }
};

Reference reference_of(const OptimizerConfig& config, const Values& masters) {
  const Values zeros = {std::vector<double>(size_t(kCounts[0])),
                        std::vector<double>(size_t(kCounts[1]))};
  return {config, masters, zeros, zeros};
}

// The largest difference.
double distance(const Values& a, const Values& b) {
  double largest = 0;
  for (size_t unit = 0; unit < a.size(); ++unit) {
    for (size_t i = 0; i < a[unit].size(); ++i)
      largest = std::max(largest, std::abs(a[unit][i] - b[unit][i]));
  }
  return largest;
}

}  // namespace

TEST_CASE("20 updates agree with the formulas in double", "[optimizer]") {
  for (const char* kind : {"adamw", "sgd"}) {
    const OptimizerConfig config{
        .kind = kind,
        .learning_rate = 0.05,
        .gradient_norm_max = 3,
        .schedule = {.kind = "cosine", .warmup_steps = 4, .total_steps = 18}};
    Rig rig(config);
    const Values start = rig.masters();
    Reference reference = reference_of(config, start);
    int clipped = 0;
    for (int64_t step = 0; step < 20; ++step) {
      // Norms from 0.3 to 6, so that some are clipped and some are not.
      const Values gradients = random_gradients(uint64_t(step), 0.02 * double(1 + step % 20));
      rig.set_gradients(gradients);
      const Optimizer::StepReport report = rig.optimizer.step(step);
      const double learning_rate = 0.05 * optim::schedule_factor(config.schedule, step);
      reference.step(gradients, learning_rate);
      INFO(kind << ", step " << step);
      REQUIRE(report.learning_rate == learning_rate);
      REQUIRE(report.gradient_norm == Approx(norm_of(gradients)).epsilon(1e-5));
      REQUIRE_FALSE(report.skipped);
      REQUIRE(rig.gradients_are_discarded());
      REQUIRE(distance(rig.masters(), reference.p) < 3e-6);
      clipped += report.gradient_norm > 3;
    }
    REQUIRE(clipped > 3);
    REQUIRE(clipped < 17);
    REQUIRE(distance(reference.p, start) > 0.1);
    REQUIRE(rig.optimizer.update_count() == 20);
  }
}

TEST_CASE("clipping bounds the length of an update", "[optimizer]") {
  for (double norm_max : {0.0, 0.5, 100.0}) {
    Rig rig({.kind = "sgd",
             .learning_rate = 1,
             .weight_decay = 0,
             .gradient_norm_max = norm_max,
             .schedule = {.kind = "constant", .warmup_steps = 0}});
    const Values before = rig.masters(), gradients = random_gradients(1, 0.5);
    rig.set_gradients(gradients);
    rig.optimizer.step(0);
    Values change = rig.masters();
    for (size_t unit = 0; unit < change.size(); ++unit) {
      for (size_t i = 0; i < change[unit].size(); ++i) change[unit][i] -= before[unit][i];
    }
    REQUIRE(norm_of(change) == Approx(norm_max == 0.5 ? 0.5 : norm_of(gradients)).epsilon(1e-4));
  }
}

TEST_CASE("a gradient that is not finite changes nothing", "[optimizer]") {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Rig rig({.schedule = {.kind = "constant", .warmup_steps = 0}});
    rig.set_gradients(random_gradients(1, 0.1));
    REQUIRE_FALSE(rig.optimizer.step(0).skipped);
    REQUIRE(rig.gradients_are_discarded());
    const Values masters = rig.masters(), m = rig.moment(0), v = rig.moment(1);

    Values gradients = random_gradients(2, 0.1);
    gradients[1][77] = bad;
    rig.set_gradients(gradients);
    const Optimizer::StepReport report = rig.optimizer.step(1);
    REQUIRE(report.skipped);
    REQUIRE_FALSE(std::isfinite(report.gradient_norm));
    REQUIRE(rig.optimizer.update_count() == 1);
    REQUIRE(rig.masters() == masters);
    REQUIRE(rig.moment(0) == m);
    REQUIRE(rig.moment(1) == v);
    REQUIRE(rig.gradients_are_discarded());

    rig.set_gradients(random_gradients(3, 0.1));
    REQUIRE_FALSE(rig.optimizer.step(2).skipped);
    REQUIRE(rig.masters() != masters);
  }
}

TEST_CASE("moments and update count carry over to another optimiser", "[optimizer]") {
  const OptimizerConfig config{.learning_rate = 0.01,
                               .schedule = {.kind = "constant", .warmup_steps = 0}};
  Rig first(config), second(config);
  for (int64_t step = 0; step < 3; ++step) {
    first.set_gradients(random_gradients(uint64_t(step), 1));
    first.optimizer.step(step);
  }
  for (int64_t unit = 0; unit < 2; ++unit) {
    std::vector<float> values(size_t(kCounts[unit]));
    first.parameters.copy_masters_to_host(unit, 0, values);
    second.parameters.copy_masters_from_host(unit, 0, values);
    for (int64_t moment = 0; moment < int64_t(first.optimizer.moment_names().size()); ++moment) {
      first.optimizer.copy_moment_to_host(moment, unit, 0, values);
      second.optimizer.copy_moment_from_host(moment, unit, 0, values);
    }
  }
  second.optimizer.set_update_count(first.optimizer.update_count());
  for (Rig* rig : {&first, &second}) {
    rig->set_gradients(random_gradients(9, 1));
    rig->optimizer.step(3);
  }
  REQUIRE(first.masters() == second.masters());
  REQUIRE(first.moment(0) == second.moment(0));
  REQUIRE(first.moment(1) == second.moment(1));
}

TEST_CASE("a joiner's fresh moments are corrected as fresh at any step", "[optimizer]") {
  const OptimizerConfig config{.learning_rate = 0.01,
                               .weight_decay = 0,
                               .schedule = {.kind = "constant", .warmup_steps = 0}};
  Rig early(config), late(config);
  for (Rig* rig : {&early, &late}) rig->set_gradients(random_gradients(4, 1));
  early.optimizer.step(0);
  late.optimizer.step(5000);
  REQUIRE(early.masters() == late.masters());
}

TEST_CASE("sgd keeps no moments", "[optimizer]") {
  Rig rig({.kind = "sgd"});
  REQUIRE(rig.optimizer.moment_names().empty());
}
