// When chunks may leave for those who catch up: nobody who trains shall wait for them. So they go
// in the gaps, when nothing of a round waits for the line, a little at a time, and even there for
// a share of the time only. Where there are no gaps at all one goes now and then, or nobody would
// ever get in.
//
// Pure: time comes with every call.
#pragma once

#include <algorithm>
#include <optional>

#include "net/machine.h"

namespace net {

class Gaps {
 public:
  // `share` of the time in which nothing else is sent: above 0, at most 1.
  explicit Gaps(double share) : share_(share) {}

  // What is queued now, of rounds and for those who catch up. To be called before and after
  // everything that is sent.
  void watch(int64_t round_bytes, int64_t other_bytes, Instant now) {
    const Duration passed = watched_at_ ? now - *watched_at_ : kCreditMax;
    watched_at_ = now;
    if (round_bytes_ == 0) credit_ += Duration(int64_t(share_ * double(passed.count())));
    if (other_bytes_ > 0) credit_ -= passed;
    credit_ = std::clamp(credit_, -kDebtMax, kCreditMax);
    round_bytes_ = round_bytes;
    if (round_bytes == 0) gap_at_ = now;
    other_bytes_ = other_bytes;
  }
  bool is_open(Instant now) const {
    if (other_bytes_ > kQueuedMax) return false;
    if (round_bytes_ > 0) return now - std::max(sent_at_.value_or(now), gap_at_) >= kStarvedAfter;
    return credit_ > Duration{};
  }
  void on_sent(Instant now) { sent_at_ = now; }
  // Somebody wants something, and nobody has for a while.
  void on_wanted(Instant now) {
    if (!sent_at_) sent_at_ = now;
  }

 private:
  // Some ticks: nobody calls us when the credit is there again.
  static constexpr Duration kCreditMax = std::chrono::milliseconds(500);
  // What one that takes nothing can cost the others.
  static constexpr Duration kDebtMax = std::chrono::seconds(30);
  static constexpr Duration kStarvedAfter = std::chrono::seconds(20);
  // What is queued is behind nothing, but all that comes is behind it.
  static constexpr int64_t kQueuedMax = 128 * 1024;

  const double share_;
  std::optional<Instant> watched_at_;
  Duration credit_{};  // To send for so long.
  int64_t round_bytes_ = 0;
  int64_t other_bytes_ = 0;
  Instant gap_at_ = Instant::min();  // When there was one the last time.
  std::optional<Instant> sent_at_;
};

}  // namespace net
