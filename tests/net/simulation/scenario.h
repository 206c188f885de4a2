// What happens in one simulated run, as data: limits, and a list of faults with their times. All of
// it is drawn from a seed before anything runs, so that parts of it can be left out afterwards and
// the rest stays as it was.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/cluster.h"

namespace net {

enum class FaultKind {
  // Of a node, from the start.
  kMisaddressed,  // It names a port that is not its own.
  kCopied,        // It has the node key of another one.
  kWeightless,    // It says that it trained on nothing.
  kSlow,          // Its steps take eight times as long, and so does what follows a commit.
  kBadClock,      // Of any host: it goes at another speed.
  // Of a node.
  kCrash,
  kLeave,
  kWithdraw,
  kSpoil,  // What it contributes cannot be decoded.
  kCrashAtMessage,
  kLie,
  // Of any host.
  kFreeze,
  kClockJump,
  kRepeat,  // What it sends comes twice, where the protocol says that this does no harm.
  // Of the network.
  kCut,
  kCutOneWay,
  kPartition,
  kBreakLinks,
  kBreakOneLink,
  kClog,
  kFailDials,
  kBlockDials,  // One node cannot dial the others, or cannot be dialled by them.
  // Of the coordinator.
  kCrashCoordinator,
  kCount
};
const char* name_of(FaultKind kind);

// About what a lying node lies.
enum class Lie { kWeight, kStep, kDone, kApplied, kSums, kResults, kState, kHello, kCount };

struct Fault {
  FaultKind kind = FaultKind::kCrash;
  Duration at{};
  Duration lasts{};
  HostId a = 0, b = 0;  // Whom it concerns.
  uint64_t detail = 0;  // What else there is to decide.
  std::string text() const;
};

struct Scenario {
  uint64_t seed = 0;
  ClusterOptions cluster;
  std::set<HostId> late;  // Nodes that are not started at the beginning.
  std::vector<Fault> faults;
  Duration duration{};  // Of the faults.
  // After it this minority of the nodes stays away while the others must get on; then all return.
  std::set<HostId> absent;
  std::set<HostId> closed;  // Nodes that nobody can dial, from the beginning to the end.
  std::string text() const;
};

Scenario draw_scenario(uint64_t seed);

// What to leave out of a scenario.
struct Reduction {
  std::optional<std::set<size_t>> faults;  // Only these, by their place in the list.
  std::optional<int64_t> nodes;            // At most so many.
  std::optional<Duration> end;             // Of the faults.
};
Scenario reduce(Scenario scenario, const Reduction& reduction);

}  // namespace net
