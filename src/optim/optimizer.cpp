#include "optim/optimizer.h"

#include <cmath>

namespace optim {

using backend::DType;
using backend::Tensor;

void describe(base::ConfigVisitor& v, OptimizerConfig& c) {
  v.choice("kind", c.kind, {{"adamw", "sgd"}}, "The rule of an update.");
  v.number("learning_rate", c.learning_rate, {0, 100}, "Peak learning rate.");
  v.number("beta1", c.beta1, {0, 0.999999}, "AdamW: decay of the mean of gradients.");
  v.number("beta2", c.beta2, {0, 0.999999}, "AdamW: decay of the mean of squared gradients.");
  v.number("epsilon", c.epsilon, {1e-20, 1}, "AdamW: added to the root of the mean square.");
  v.number("weight_decay", c.weight_decay, {0, 10},
           "Times learning rate: the part of every parameter that an update takes away.");
  v.number("gradient_norm_max", c.gradient_norm_max, {0, 1e9},
           "Longer gradients, over all parameters, are scaled down to it; 0: never.");
  v.section("schedule", "The learning rate over the steps.", [&] { describe(v, c.schedule); });
}

void validate(const OptimizerConfig& c) {
  validate(c.schedule);
}

struct Optimizer::State {
  // The moments of one unit, cut as its masters are. Empty for sgd.
  struct Moments {
    std::unique_ptr<backend::Buffer> m_buffer, v_buffer;
    Tensor m, v;
  };

  const OptimizerConfig config;
  shard::Parameters& parameters;
  backend::Backend& backend;
  std::vector<Moments> moments;
  std::unique_ptr<backend::Buffer> square_sum_buffer, scale_buffer;
  Tensor square_sum, scale;
  int64_t update_count = 0;

  backend::Device& device() const { return *backend.device; }
  backend::Stream& stream() const { return device().compute_stream(); }
  int64_t unit_count() const { return int64_t(parameters.layout().units.size()); }
  bool has_moments() const { return config.kind == "adamw"; }

  double gradient_norm() const;
  void update_unit(int64_t unit, double learning_rate) const;
  const Tensor& moment(int64_t moment, int64_t unit) const;
};

Optimizer::Optimizer(const OptimizerConfig& config, shard::Parameters& parameters,
                     backend::Backend& backend)
    : state_(new State{.config = config, .parameters = parameters, .backend = backend}) {
  State& s = *state_;
  s.square_sum_buffer = s.device().allocate(sizeof(float), "gradient norm");
  s.scale_buffer = s.device().allocate(sizeof(float), "gradient scale");
  s.square_sum = s.square_sum_buffer->tensor(DType::kFloat32, {1});
  s.scale = s.scale_buffer->tensor(DType::kFloat32, {1});
  if (!s.has_moments()) return;
  for (int64_t u = 0; u < s.unit_count(); ++u) {
    const Tensor master = parameters.master_shard(u);
    const std::string& name = parameters.layout().units[size_t(u)].name;
    State::Moments moments;
    moments.m_buffer = s.device().allocate(master.byte_count(), name + " AdamW m");
    moments.v_buffer = s.device().allocate(master.byte_count(), name + " AdamW v");
    moments.m = moments.m_buffer->tensor(DType::kFloat32, master.shape);
    moments.v = moments.v_buffer->tensor(DType::kFloat32, master.shape);
    s.moments.push_back(std::move(moments));
  }
}

Optimizer::~Optimizer() = default;

// Over all units of all ranks. Leaves the sum of squares on the device and waits for it: the step's
// one wait, which lets a gradient that is not finite be seen before it reaches any parameter.
double Optimizer::State::gradient_norm() const {
  for (int64_t u = 0; u < unit_count(); ++u) {
    backend.ops->sum_of_squares(
        {.out = square_sum, .in = parameters.gradient_shard(u), .accumulate = u > 0}, stream());
  }
  if (backend.communicator->rank_count() > 1)
    backend.communicator->all_reduce(square_sum, stream());
  float sum = 0;
  device().copy(&sum, square_sum.data, sizeof(sum), stream());
  device().synchronize(stream());
  return std::sqrt(double(sum));
}

void Optimizer::State::update_unit(int64_t unit, double learning_rate) const {
  if (!has_moments()) {
    backend.ops->sgd({.parameter = parameters.master_shard(unit),
                      .gradient = parameters.gradient_shard(unit),
                      .gradient_scale = scale,
                      .learning_rate = float(learning_rate),
                      .weight_decay = float(config.weight_decay)},
                     stream());
    return;
  }
  backend.ops->adamw({.parameter = parameters.master_shard(unit),
                      .gradient = parameters.gradient_shard(unit),
                      .m = moments[size_t(unit)].m,
                      .v = moments[size_t(unit)].v,
                      .gradient_scale = scale,
                      .learning_rate = float(learning_rate),
                      .beta1 = float(config.beta1),
                      .beta2 = float(config.beta2),
                      .epsilon = float(config.epsilon),
                      .weight_decay = float(config.weight_decay),
                      .step = update_count},
                     stream());
}

Optimizer::StepReport Optimizer::step(int64_t step) {
  State& s = *state_;
  StepReport report{
      .gradient_norm = s.gradient_norm(),
      .learning_rate = s.config.learning_rate * schedule_factor(s.config.schedule, step)};
  report.skipped = !std::isfinite(report.gradient_norm);
  if (!report.skipped) {
    s.backend.ops->clip_scale({.scale = s.scale,
                               .sum_of_squares = s.square_sum,
                               .norm_max = float(s.config.gradient_norm_max)},
                              s.stream());
    ++s.update_count;
    for (int64_t u = 0; u < s.unit_count(); ++u) s.update_unit(u, report.learning_rate);
    s.parameters.masters_changed();
  }
  s.parameters.zero_gradients();
  return report;
}

int64_t Optimizer::update_count() const {
  return state_->update_count;
}

void Optimizer::set_update_count(int64_t count) {
  CHECK(count >= 0);
  state_->update_count = count;
}

std::vector<std::string> Optimizer::moment_names() const {
  if (!state_->has_moments()) return {};
  return {"m", "v"};
}

const Tensor& Optimizer::State::moment(int64_t moment, int64_t unit) const {
  CHECK(has_moments() && (moment == 0 || moment == 1));
  const Moments& of_unit = moments.at(size_t(unit));
  return moment == 0 ? of_unit.m : of_unit.v;
}

void Optimizer::copy_moment_to_host(int64_t moment, int64_t unit, int64_t first,
                                    std::span<float> elements) const {
  state_->parameters.copy_shard_to_host(state_->moment(moment, unit), unit, first, elements);
}

void Optimizer::copy_moment_from_host(int64_t moment, int64_t unit, int64_t first,
                                      std::span<const float> elements) {
  state_->parameters.copy_shard_from_host(state_->moment(moment, unit), unit, first, elements);
}

}  // namespace optim
