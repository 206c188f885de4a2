// The inner optimiser: AdamW, or plain SGD, over the flat shards of one rank, with clipping by
// global norm.
//
// Everything is queued on the device, also the decision to skip a step whose gradient is not
// finite: the host learns of it afterwards, from take_report().
//
// Lean (shard::Parameters::is_lean): moments of 8 bits, and each unit is updated as soon as its
// gradient is whole, inside the backward, when the global norm of the step is not known yet. What
// the gradient is clipped by is then the norm over all units of the newest gradient that each has
// had: this step's for those that were updated before, the last step's for the rest. A spike in a
// unit's gradient is bounded at once, by its own share; and where norms change slowly, it is the
// global norm.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/json.h"
#include "optim/schedule.h"
#include "shard/parameters.h"

namespace optim {

struct OptimizerConfig {
  std::string kind = "adamw";  // adamw | sgd
  double learning_rate = 4e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;       // On every parameter, as PRIME.
  double gradient_norm_max = 1.0;  // 0: no clipping.
  ScheduleConfig schedule;
};
void describe(base::ConfigVisitor& v, OptimizerConfig& config);
void validate(const OptimizerConfig& config);

// Where the moments lie. In the host's memory the device reads and writes them over the bus: 16
// bytes per parameter and step, 4 if lean.
enum class MomentPlace { kDevice, kHost };

class Optimizer {
 public:
  // Allocates the moments. Arguments outlive the object.
  Optimizer(const OptimizerConfig& config, shard::Parameters& parameters, backend::Backend& backend,
            MomentPlace place = MomentPlace::kDevice);
  ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // What the stochastic rounding of lean masters depends on besides the update and the element.
  // Nodes that rounded alike would keep the error when they average. At first 0 and 0.
  void set_rounding_seed(uint64_t run_seed, uint64_t node);

  // Before the step's backward. `step` counts from 0 and fixes the learning rate; AdamW's bias
  // correction counts this optimiser's own updates, so that a joiner that enters at step 5000 with
  // fresh moments corrects them as fresh. Lean: one backward per step.
  void begin_step(int64_t step);
  // Queues the update with the gradient shards, which are discarded afterwards.
  void end_step();

  struct StepReport {
    double gradient_norm = 0;  // Before clipping.
    double learning_rate = 0;
    // The norm was not finite: parameters and moments are as before. (Lean: some units may have
    // been updated before it was noticed.)
    bool skipped = false;
  };
  // Of the step that was ended last. Waits for the device.
  StepReport take_report();

  // All three.
  StepReport step(int64_t step);

  // What a checkpoint needs: m and v of a unit (empty for sgd), as canonical host copies, and the
  // number of updates. Lean: a unit's elements must come from the first to the last, and count once
  // the last is there, because blocks of them are coded together.
  int64_t update_count() const;
  void set_update_count(int64_t count);
  // Lean: of each unit's newest gradient; else empty. REQUIRES: take_report() was the last call.
  std::vector<double> gradient_squares() const;
  void set_gradient_squares(const std::vector<double>& squares);
  std::vector<std::string> moment_names() const;  // {"m", "v"} or {}
  void copy_moment_to_host(int64_t moment, int64_t unit, int64_t first,
                           std::span<float> elements) const;
  void copy_moment_from_host(int64_t moment, int64_t unit, int64_t first,
                             std::span<const float> elements);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace optim
