// One call of a machine: when it is, and what can be done. Passed down by value, never kept.
#pragma once

#include <string>

#include "net/machine.h"

namespace net {

struct Turn {
  Instant now;
  Outbox& out;
};

// What stands in every frame of a run (Message::run).
uint64_t run_hash(const std::string& run_name);

// The payload of messages that need none.
Bytes no_payload();

}  // namespace net
