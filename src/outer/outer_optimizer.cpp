#include "outer/outer_optimizer.h"

#include <cstddef>

#include "base/error.h"

namespace outer {

void OuterOptimizer::step(std::span<const float> mean_pseudo_gradient, std::span<float> theta,
                          std::span<float> m) const {
  CHECK(theta.size() == mean_pseudo_gradient.size() && m.size() == theta.size());
  const float* __restrict d = mean_pseudo_gradient.data();
  float* __restrict parameter = theta.data();
  float* __restrict velocity = m.data();
  const float mu = momentum;
  const float eta = learning_rate;
  for (size_t i = 0; i < theta.size(); ++i) {
    const float next = mu * velocity[i] + d[i];
    velocity[i] = next;
    parameter[i] = parameter[i] - eta * (d[i] + mu * next);
  }
}

void OuterOptimizer::change(std::span<float> mean_pseudo_gradient, std::span<const float> m) const {
  CHECK(m.size() == mean_pseudo_gradient.size());
  float* __restrict d = mean_pseudo_gradient.data();
  const float* __restrict velocity = m.data();
  const float mu = momentum;
  const float eta = learning_rate;
  for (size_t i = 0; i < m.size(); ++i) d[i] = eta * (d[i] + mu * velocity[i]);
}

}  // namespace outer
