// The inner loop of one rank: one step at a time.
#pragma once

#include <cstdint>

#include "data/loader.h"
#include "optim/optimizer.h"
#include "train/engine.h"
#include "train/run_config.h"

namespace train {

// One `inner_step` line of metrics.jsonl.
struct InnerStep {
  int64_t step = 0;  // Inner steps done, this one included.
  double loss = 0;   // Mean over the step's targets, nats.
  double z_loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  int64_t tokens = 0;
  double seconds = 0;
  bool skipped = false;  // Not finite: nothing was changed.
};

class Trainer {
 public:
  // Arguments outlive the object.
  Trainer(const TrainingConfig& config, Engine& engine, optim::Optimizer& optimizer);

  // Trains on `batch`, whose number is the step's. Throws bad_input after too many skipped steps in
  // a row.
  InnerStep step(const data::Batch& batch);

 private:
  void accumulate_gradients(const data::Batch& batch);
  void count_skipped(const InnerStep& report);

  const TrainingConfig& config_;
  Engine& engine_;
  optim::Optimizer& optimizer_;
  int64_t skipped_in_a_row_ = 0;
};

}  // namespace train
