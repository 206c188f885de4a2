#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/quantization.h"
#include "base/hash.h"
#include "base/math.h"

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
  // The moments of one unit, cut as its masters are. Empty for sgd; with scales if lean.
  struct Moments {
    std::vector<std::unique_ptr<backend::Buffer>> storage;
    Tensor values[2];  // m, v
    Tensor scales[2];
  };

  const OptimizerConfig config;
  shard::Parameters& parameters;
  backend::Backend& backend;
  const MomentPlace place;
  std::vector<Moments> moments = {};
  std::unique_ptr<backend::Buffer> squares_buffer = nullptr, scale_buffer = nullptr;
  std::unique_ptr<backend::Buffer> host_squares = nullptr;
  Tensor squares = {};  // Of each unit's newest gradient, over all ranks.
  Tensor scale = {};
  StepReport report = {};
  uint64_t run_seed = 0, node = 0;
  int64_t update_count = 0;  // With the one that is under way.
  // Lean: moments on their way from the host, (moment, unit) -> elements so far.
  std::map<std::pair<int64_t, int64_t>, std::vector<float>> arriving = {};

  backend::Device& device() const { return *backend.device; }
  backend::Stream& stream() const { return device().compute_stream(); }
  int64_t unit_count() const { return int64_t(parameters.layout().units.size()); }
  bool has_moments() const { return config.kind == "adamw"; }
  const std::string& unit_name(int64_t unit) const {
    return parameters.layout().units[size_t(unit)].name;
  }

  Moments allocate_moments(int64_t unit) const;
  void measure(int64_t unit, backend::Stream& stream) const;
  void clip(backend::Stream& stream) const;
  uint64_t rounding_seed(int64_t unit) const;
  void update_unit(int64_t unit, backend::Stream& stream) const;
  void consume(int64_t unit, backend::Stream& stream) const;
  const Moments& moments_of(int64_t unit) const;
  void decode(int64_t moment, int64_t unit, int64_t first, std::span<float> elements) const;
  void encode(int64_t moment, int64_t unit, std::span<const float> elements) const;
};

Optimizer::Optimizer(const OptimizerConfig& config, shard::Parameters& parameters,
                     backend::Backend& backend, MomentPlace place)
    : state_(new State{
          .config = config, .parameters = parameters, .backend = backend, .place = place}) {
  State& s = *state_;
  const int64_t squares_bytes = s.unit_count() * int64_t{sizeof(float)};
  s.squares_buffer = s.device().allocate(squares_bytes, "gradient norms");
  s.host_squares = s.device().allocate_host(squares_bytes, "gradient norms");
  s.scale_buffer = s.device().allocate(sizeof(float), "gradient scale");
  s.squares = s.squares_buffer->tensor(DType::kFloat32, {s.unit_count()});
  s.scale = s.scale_buffer->tensor(DType::kFloat32, {1});
  if (parameters.is_lean()) {
    if (!s.has_moments()) {
      throw base::bad_input("optimizer.kind is sgd, but node.memory is lean",
                            "Use adamw, or node.memory standard.");
    }
    parameters.set_gradient_consumer(
        [&s](int64_t unit, backend::Stream& stream) { s.consume(unit, stream); });
  }
  if (!s.has_moments()) return;
  for (int64_t u = 0; u < s.unit_count(); ++u) s.moments.push_back(s.allocate_moments(u));
}

Optimizer::~Optimizer() {
  if (state_->parameters.is_lean()) state_->parameters.set_gradient_consumer({});
}

Optimizer::State::Moments Optimizer::State::allocate_moments(int64_t unit) const {
  const int64_t count = parameters.master_shard(unit).element_count();
  Moments moments;
  const auto allocate = [&](DType dtype, int64_t n, const char* what) {
    const int64_t bytes = n * backend::bytes_per_element(dtype);
    const std::string label = unit_name(unit) + " AdamW " + what;
    moments.storage.push_back(place == MomentPlace::kHost ? device().allocate_host(bytes, label)
                                                          : device().allocate(bytes, label));
    return moments.storage.back()->tensor(dtype, {n});
  };
  const bool is_lean = parameters.is_lean();
  const int64_t block_count = base::div_ceil(count, backend::kMomentBlock);
  const char* const names[] = {"m", "v"};
  const char* const scale_names[] = {"m scales", "v scales"};
  for (int i = 0; i < 2; ++i) {
    moments.values[i] = allocate(is_lean ? DType::kUint8 : DType::kFloat32, count, names[i]);
    if (is_lean) moments.scales[i] = allocate(DType::kFloat32, block_count, scale_names[i]);
  }
  return moments;
}

void Optimizer::set_rounding_seed(uint64_t run_seed, uint64_t node) {
  state_->run_seed = run_seed;
  state_->node = node;
}

void Optimizer::begin_step(int64_t step) {
  State& s = *state_;
  // A norm that is not finite would outlive its step, and keep the units that come first in the
  // next one from being updated.
  if (s.report.skipped) s.backend.ops->zero(s.squares, s.stream());
  s.report = {.learning_rate = s.config.learning_rate * schedule_factor(s.config.schedule, step)};
  ++s.update_count;
}

void Optimizer::State::measure(int64_t unit, backend::Stream& stream) const {
  backend.ops->sum_of_squares(
      {.out = squares.slice(unit, {1}), .in = parameters.gradient_shard(unit)}, stream);
}

void Optimizer::State::clip(backend::Stream& stream) const {
  backend.ops->clip_scale(
      {.scale = scale, .sums_of_squares = squares, .norm_max = float(config.gradient_norm_max)},
      stream);
}

uint64_t Optimizer::State::rounding_seed(int64_t unit) const {
  const auto words = base::philox(run_seed, uint64_t(unit), node);
  return uint64_t{words[0]} | uint64_t{words[1]} << 32;
}

void Optimizer::State::update_unit(int64_t unit, backend::Stream& stream) const {
  if (!has_moments()) {
    backend.ops->sgd({.parameter = parameters.master_shard(unit),
                      .gradient = parameters.gradient_shard(unit),
                      .copy = parameters.copy_shard(unit),
                      .gradient_scale = scale,
                      .learning_rate = float(report.learning_rate),
                      .weight_decay = float(config.weight_decay)},
                     stream);
    return;
  }
  const Moments& of_unit = moments[size_t(unit)];
  backend.ops->adamw({.parameter = parameters.master_shard(unit),
                      .gradient = parameters.gradient_shard(unit),
                      .m = of_unit.values[0],
                      .v = of_unit.values[1],
                      .copy = parameters.copy_shard(unit),
                      .gradient_scale = scale,
                      .m_scale = of_unit.scales[0],
                      .v_scale = of_unit.scales[1],
                      .learning_rate = float(report.learning_rate),
                      .beta1 = float(config.beta1),
                      .beta2 = float(config.beta2),
                      .epsilon = float(config.epsilon),
                      .weight_decay = float(config.weight_decay),
                      .step = update_count,
                      .rounding_seed = rounding_seed(unit)},
                     stream);
}

void Optimizer::State::consume(int64_t unit, backend::Stream& stream) const {
  measure(unit, stream);
  clip(stream);
  update_unit(unit, stream);
}

void Optimizer::end_step() {
  State& s = *state_;
  s.parameters.await_reductions();
  if (!s.parameters.is_lean()) {
    for (int64_t u = 0; u < s.unit_count(); ++u) s.measure(u, s.stream());
    s.parameters.sum_over_shards(s.squares);
    s.clip(s.stream());
    for (int64_t u = 0; u < s.unit_count(); ++u) {
      s.update_unit(u, s.stream());
      s.parameters.masters_updated(u);
    }
    s.parameters.discard_gradients();
  }
  s.device().copy(s.host_squares->data(), s.squares.data, s.squares.byte_count(), s.stream());
}

Optimizer::StepReport Optimizer::take_report() {
  State& s = *state_;
  s.device().synchronize(s.stream());
  const auto* squares = static_cast<const float*>(s.host_squares->data());
  double sum = 0;
  for (int64_t u = 0; u < s.unit_count(); ++u) sum += double(squares[u]);
  s.report.gradient_norm = std::sqrt(sum);
  s.report.skipped = !std::isfinite(s.report.gradient_norm);
  if (s.report.skipped) --s.update_count;
  return s.report;
}

Optimizer::StepReport Optimizer::step(int64_t step) {
  begin_step(step);
  end_step();
  return take_report();
}

int64_t Optimizer::update_count() const {
  return state_->update_count;
}

void Optimizer::set_update_count(int64_t count) {
  CHECK(count >= 0);
  state_->update_count = count;
}

std::vector<double> Optimizer::gradient_squares() const {
  const State& s = *state_;
  if (!s.parameters.is_lean()) return {};
  const auto* squares = static_cast<const float*>(s.host_squares->data());
  if (s.report.skipped) return std::vector<double>(size_t(s.unit_count()));
  return {squares, squares + s.unit_count()};
}

void Optimizer::set_gradient_squares(const std::vector<double>& squares) {
  State& s = *state_;
  if (!s.parameters.is_lean() || int64_t(squares.size()) != s.unit_count()) return;
  std::ranges::transform(squares, static_cast<float*>(s.host_squares->data()),
                         [](double value) { return float(value); });
  s.device().copy(s.squares.data, s.host_squares->data(), s.squares.byte_count(), s.stream());
  s.device().synchronize(s.stream());
}

std::vector<std::string> Optimizer::moment_names() const {
  if (!state_->has_moments()) return {};
  return {"m", "v"};
}

const Optimizer::State::Moments& Optimizer::State::moments_of(int64_t unit) const {
  CHECK(has_moments());
  return moments.at(size_t(unit));
}

void Optimizer::copy_moment_to_host(int64_t moment, int64_t unit, int64_t first,
                                    std::span<float> elements) const {
  const State& s = *state_;
  CHECK(moment == 0 || moment == 1);
  const Tensor& values = s.moments_of(unit).values[moment];
  if (s.parameters.is_lean()) return s.decode(moment, unit, first, elements);
  s.parameters.copy_shard_to_host(values, unit, first, elements);
}

void Optimizer::copy_moment_from_host(int64_t moment, int64_t unit, int64_t first,
                                      std::span<const float> elements) {
  State& s = *state_;
  CHECK(moment == 0 || moment == 1);
  if (!s.parameters.is_lean()) {
    const Tensor& values = s.moments_of(unit).values[moment];
    return s.parameters.copy_shard_from_host(values, unit, first, elements);
  }
  auto& arriving = s.arriving[{moment, unit}];
  CHECK(first == int64_t(arriving.size()), "element {} after {}", first, arriving.size());
  arriving.insert(arriving.end(), elements.begin(), elements.end());
  if (int64_t(arriving.size()) < s.parameters.layout().units[size_t(unit)].element_count) return;
  s.encode(moment, unit, arriving);
  s.arriving.erase({moment, unit});
}

// --- Moments of 8 bits, see backend/quantization.h: m with a sign, and the root of v.

void Optimizer::State::decode(int64_t moment, int64_t unit, int64_t first,
                              std::span<float> elements) const {
  const int64_t end = first + int64_t(elements.size());
  CHECK(first >= 0 && end <= parameters.layout().units[size_t(unit)].element_count);
  if (elements.empty()) return;
  const int64_t first_block = first / backend::kMomentBlock;
  std::vector<uint8_t> codes(elements.size());
  std::vector<float> scales(size_t((end - 1) / backend::kMomentBlock - first_block + 1));
  const Moments& of_unit = moments_of(unit);
  const Tensor code_part = of_unit.values[moment].slice(first, {int64_t(codes.size())});
  const Tensor scale_part = of_unit.scales[moment].slice(first_block, {int64_t(scales.size())});
  device().copy(codes.data(), code_part.data, code_part.byte_count(), stream());
  device().copy(scales.data(), scale_part.data, scale_part.byte_count(), stream());
  device().synchronize(stream());
  for (size_t i = 0; i < elements.size(); ++i) {
    const int64_t block = (first + int64_t(i)) / backend::kMomentBlock - first_block;
    const float value = backend::decode_moment(moment == 0, codes[i]) * scales[size_t(block)];
    elements[i] = moment == 0 ? value : value * value;
  }
}

void Optimizer::State::encode(int64_t moment, int64_t unit, std::span<const float> elements) const {
  const Moments& of_unit = moments_of(unit);
  std::vector<uint8_t> codes(size_t(of_unit.values[moment].element_count()));
  std::vector<float> scales(size_t(of_unit.scales[moment].element_count()));
  const auto value_at = [&](size_t i) {
    return moment == 0 ? elements[i] : std::sqrt(elements[i]);
  };
  for (size_t block = 0; block < scales.size(); ++block) {
    const size_t begin = block * size_t(backend::kMomentBlock);
    const size_t end = std::min(begin + size_t(backend::kMomentBlock), elements.size());
    for (size_t i = begin; i < end; ++i)
      scales[block] = std::max(scales[block], std::abs(value_at(i)));
    const backend::MomentScale scale = backend::moment_scale(scales[block]);
    for (size_t i = begin; i < end; ++i)
      codes[i] = backend::encode_moment(moment == 0, value_at(i), scale);
  }
  device().copy(of_unit.values[moment].data, codes.data(), int64_t(codes.size()), stream());
  device().copy(of_unit.scales[moment].data, scales.data(), of_unit.scales[moment].byte_count(),
                stream());
  device().synchronize(stream());
}

}  // namespace optim
