// The inner optimiser: AdamW, or plain SGD, over the flat shards of one rank, with clipping by
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

class Optimizer {
 public:
  // Allocates the moments. Arguments outlive the object.
  Optimizer(const OptimizerConfig& config, shard::Parameters& parameters,
            backend::Backend& backend);
  ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  struct StepReport {
    double gradient_norm = 0;  // Before clipping.
    double learning_rate = 0;
    bool skipped = false;  // The norm was not finite: parameters and moments are as before.
  };
  // One update with the gradient shards, which are zero afterwards. `step` counts from 0 and fixes
  // the learning rate; AdamW's bias correction counts this optimiser's own updates, so that a
  // joiner that enters at step 5000 with fresh moments corrects them as fresh.
  StepReport step(int64_t step);

  // What a checkpoint needs: m and v of a unit (empty for sgd), as canonical host copies, and the
  // number of updates.
  int64_t update_count() const;
  void set_update_count(int64_t count);
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
