// Learning rate as a pure function of the step.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace optim {

// Linear warm-up from 0 (step 0 has learning rate 0, as in PRIME), then by `kind`:
//   constant  the peak for ever.
//   cosine    half a cosine from the peak to `final_fraction` * peak at `total_steps`.
//   wsd       warm-up, stable, decay: the peak until `stable_steps`, then peak * (1 - sqrt((t -
//   stable) / (total - stable)))
//             (Haegele et al. 2024, arXiv 2405.18392; PRIME's wsd-sqrt), 0 after `total_steps`.
struct ScheduleConfig {
  std::string kind = "cosine";  // constant | cosine | wsd
  int64_t warmup_steps = 100;
  int64_t stable_steps = 0;     // Only wsd.
  int64_t total_steps = 0;      // 0: the run's number of steps, filled in by the run's config.
  double final_fraction = 0.1;  // Only cosine.
};
void describe(base::ConfigVisitor& v, ScheduleConfig& config);
void validate(const ScheduleConfig& config);

// In [0, 1], to be multiplied with the peak learning rate. `step` counts from 0.
double schedule_factor(const ScheduleConfig& config, int64_t step);

}  // namespace optim
