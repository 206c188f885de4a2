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

}  // namespace outer
