// The outer loop's part of a run's config.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace outer {

struct OuterConfig {
  int64_t inner_steps = 100;  // H
  int64_t fragments = 1;      // P; 1 is plain DiLoCo.
  double learning_rate = 0.7;
  double momentum = 0.9;       // Nesterov.
  std::string codec = "int8";  // int8 | fp32
  // A contribution's norm in a chunk, times the median's; 0: no bound.
  double contribution_norm_max = 10;
};
void describe(base::ConfigVisitor& v, OuterConfig& config);

}  // namespace outer
