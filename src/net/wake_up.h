// When a machine's on_tick is due: the rule that machine.h states, for all who run machines.
#pragma once

#include <algorithm>

#include "net/machine.h"

namespace net {

class WakeUp {
 public:
  // Instant::max(): not before something happens.
  Instant at() const { return at_; }
  void begin_tick() { at_ = Instant::max(); }
  // The machine was called, or did something: it looks at what follows from that.
  void review(Instant now) { at_ = std::min(at_, now + kReviewWithin); }
  // Outbox::wake_at. A deadline that has come is an event too.
  void ask(Instant at, Instant now) {
    if (at <= now) return review(now);
    at_ = std::min(at_, at);
  }

 private:
  Instant at_ = Instant::max();
};

}  // namespace net
