// When a checkpoint is due.
#pragma once

#include <cstdint>

namespace train {

// Every so many steps; after a save that failed, sooner; and never inside a streak of steps that
// were skipped because they were not finite, for whoever goes on from there meets the rest of it.
class SaveSchedule {
 public:
  // 0: never.
  explicit SaveSchedule(int64_t every_steps) : every_steps_(every_steps) {}

  // After every step, in order. `is_in_streak`: the step was skipped. True: save now.
  bool is_due(int64_t step, bool is_in_streak);
  // The save after `step` failed. Returns the step after which the next attempt is made.
  int64_t failed(int64_t step);

 private:
  const int64_t every_steps_;
  int64_t retry_step_ = -1;  // -1: none.
  bool is_pending_ = false;
};

}  // namespace train
