// The outer optimiser: SGD with Nesterov momentum as PyTorch defines it, elementwise in fp32. With
// d the mean pseudo-gradient (old outer parameters minus new local ones, so that it points uphill
// as a gradient does):
//
//   m = momentum * m + d
//   theta = theta - learning_rate * (d + momentum * m)
//
// Every operation is rounded by itself (the build forbids contraction) and no sum runs over
// elements, so that the bits depend neither on the machine nor on its vector width.
#pragma once

#include <span>

namespace outer {

struct OuterOptimizer {
  float learning_rate = 0;
  float momentum = 0;

  // The three spans have one size and do not overlap.
  void step(std::span<const float> mean_pseudo_gradient, std::span<float> theta,
            std::span<float> m) const;
  // What step() took from theta, learning_rate * (d + momentum * m): d becomes it. `m` is that
  // after the step.
  void change(std::span<float> mean_pseudo_gradient, std::span<const float> m) const;
};

}  // namespace outer
