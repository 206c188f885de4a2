// Learning rate as a pure function of the step.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace optim {

// Linear warm-up from 0 (step 0 has learning rate 0, as in PRIME), then by `kind`:
//   constant  the peak for ever.
//   cosine    half a cosine from the peak to `final_fraction` * peak at `total_steps`.
//   wsd       warm-up, stable, decay: the peak until `stable_steps`, then
//             peak * (1 - sqrt((t - stable) / (total - stable))), 0 after `total_steps`
//             (Haegele et al. 2024, arXiv 2405.18392; PRIME's wsd-sqrt).
struct ScheduleConfig {
  std::string kind = "cosine";  // constant | cosine | wsd
  int64_t warmup_steps = 100;
  int64_t stable_steps = 0;     // Only wsd.
  int64_t total_steps = 0;      // 0: the run's number of steps, filled in by the run's config.
  double final_fraction = 0.1;  // Only cosine.
};
void describe(base::ConfigVisitor& v, ScheduleConfig& config);
// Throws bad_input when the parts do not fit each other. Says nothing of total_steps = 0, which
// whoever knows the run's length replaces before the first schedule_factor().
void validate(const ScheduleConfig& config);

// In [0, 1], to be multiplied with the peak learning rate. `step` counts from 0.
// REQUIRES: total_steps > 0, unless `kind` is constant.
double schedule_factor(const ScheduleConfig& config, int64_t step);

}  // namespace optim
