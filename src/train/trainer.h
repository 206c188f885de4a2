// The inner loop of a node: one step at a time.
#pragma once

#include <cstdint>

#include "data/loader.h"
#include "train/rank_team.h"
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
  int64_t samples = 0;   // Of the run's data: how many are handed out,
  double passes = 0;     // and how many passes over the data that is.
  bool skipped = false;  // Not finite: nothing was changed.
};

// Too many steps in a row were not finite.
class Diverged : public base::Error {
 public:
  using Error::Error;
};

class Trainer {
 public:
  // Arguments outlive the object.
  Trainer(const TrainingConfig& config, RankTeam& ranks);

  // Trains on `batch`, whose number is the step's. Throws Diverged (bad input) after too many
  // skipped steps in a row.
  InnerStep step(const data::Batch& batch);
  // The newest steps were skipped: so many.
  int64_t skipped_in_a_row() const { return skipped_in_a_row_; }

 private:
  void count_skipped(const InnerStep& report);

  const TrainingConfig& config_;
  RankTeam& ranks_;
  int64_t skipped_in_a_row_ = 0;
};

}  // namespace train
