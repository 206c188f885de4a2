// What must outlive a process for a run to have one coordinator at a time: whose orders a node
// takes, and who the members were.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "net/message.h"

namespace net {

struct RunLog {
  // The newest coordinator that we follow, or are. We never go back to one before it.
  uint32_t term = 0;
  uint64_t coordinator = 0;  // As Welcome::coordinator.
  // The last list of active members that we know, as epoch of a coordinator's term.
  uint32_t list_term = 0;
  uint64_t epoch = 0;
  Membership list;
  bool operator==(const RunLog&) const = default;
};

// Returns when it would survive a crash of the machine. Called on the loop thread, whenever
// something in it changes and before anybody is told what follows from it: seldom.
using KeepLog = std::function<void(const RunLog&)>;

}  // namespace net
