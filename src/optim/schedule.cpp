#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"

namespace optim {

void describe(base::ConfigVisitor& v, ScheduleConfig& c) {
  constexpr double kForever = 1e15;
  v.choice("kind", c.kind, {{"constant", "cosine", "wsd"}}, "What follows the warm-up.");
  v.integer("warmup_steps", c.warmup_steps, {0, kForever},
            "Steps in which the learning rate rises from 0.");
  v.integer("stable_steps", c.stable_steps, {0, kForever},
            "Only wsd: the step at which the decay starts.");
  v.integer("total_steps", c.total_steps, {0, kForever},
            "The step at which the decay ends; 0 is the run's last.");
  v.number("final_fraction", c.final_fraction, {0, 1},
           "Only cosine: what is left of the peak at the end.");
}

void validate(const ScheduleConfig& c) {
  if (c.kind == "constant" || c.total_steps == 0) return;
  const bool is_wsd = c.kind == "wsd";
  if (is_wsd && c.stable_steps < c.warmup_steps) {
    throw base::bad_input(
        fmt::format("schedule: stable_steps = {} is before the end of the warm-up at {}",
                    c.stable_steps, c.warmup_steps),
        "stable_steps counts from the start of the run.");
  }
  const int64_t decay_start = is_wsd ? c.stable_steps : c.warmup_steps;
  if (c.total_steps <= decay_start) {
    throw base::bad_input(
        fmt::format("schedule: total_steps = {} leaves no step for the decay that starts at {}",
                    c.total_steps, decay_start),
        "kind = constant has no decay.");
  }
}

double schedule_factor(const ScheduleConfig& c, int64_t step) {
  CHECK(step >= 0);
  if (step < c.warmup_steps) return double(step) / double(c.warmup_steps);
  if (c.kind == "constant") return 1;
  CHECK(c.total_steps > 0, "total_steps was not filled in");
  const auto progress = [&](int64_t start) {
    return std::clamp(double(step - start) / double(c.total_steps - start), 0.0, 1.0);
  };
  if (c.kind == "cosine") {
    const double wave = 0.5 * (1 + std::cos(std::numbers::pi * progress(c.warmup_steps)));
    return c.final_fraction + (1 - c.final_fraction) * wave;
  }
  CHECK(c.kind == "wsd", "{}", c.kind);
  return 1 - std::sqrt(progress(c.stable_steps));
}

}  // namespace optim
