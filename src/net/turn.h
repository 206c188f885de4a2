// One call of a machine: when it is, and what can be done. Passed down by value, never kept.
#pragma once

#include <string>

#include "net/machine.h"

namespace net {

struct Turn {
  Instant now;
  Outbox& out;

  // Has this deadline come? If not, the machine is called when it has. All that a machine does at a
  // time, and not because of an event, hangs on this question.
  bool is_due(Instant at) const {
    out.wake_at(at);
    return at <= now;
  }
  // For what depends on time and knows no deadline.
  void look_again() const { out.wake_at(now); }
};

// What stands in every frame of a run (Message::run).
uint64_t run_hash(const std::string& run_name);

// The payload of messages that need none.
Bytes no_payload();

}  // namespace net
