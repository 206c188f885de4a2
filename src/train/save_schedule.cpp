#include "train/save_schedule.h"

#include <algorithm>

namespace train {

// A node that was moved to a later step may skip a multiple; the next one will do.
bool SaveSchedule::is_due(int64_t step, bool is_in_streak) {
  if (every_steps_ <= 0) return false;
  const bool is_retry = retry_step_ >= 0 && step >= retry_step_;
  if (step % every_steps_ == 0 || is_retry) is_pending_ = true;
  if (!is_pending_ || is_in_streak) return false;
  is_pending_ = false;
  retry_step_ = -1;
  return true;
}

int64_t SaveSchedule::failed(int64_t step) {
  retry_step_ = step + std::max<int64_t>(1, every_steps_ / 10);
  return retry_step_;
}

}  // namespace train
