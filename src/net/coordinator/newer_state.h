// Who comes late with a state that is newer than the run's knows how far the run was, or lies, or
// is of another start of the run: it waits until that is clear.
#pragma once

#include <vector>

#include "net/coordinator.h"
#include "net/coordinator/state_in_force.h"
#include "net/turn.h"

namespace net {

// What a newcomer's state is to the run.
enum class Newcomer {
  kTakesOurs,  // It is not newer, or by a commit or two that all others missed.
  kIsRight,    // Its state is put in force.
  kWaits,      // For others who know of it.
};
Newcomer judge_newcomer(const MemberRecord& member, const StateInForce& in_force, bool adopt_newer);

// Those who wait with a newer state are right if they are most of the last active members that they
// know of and not fewer than those whose state would be replaced, or if more have that same state
// than are active. A coordinator that was started again may have found an old node first.
struct WaitingVerdict {
  const MemberRecord* right = nullptr;  // Nobody yet.
  std::vector<PeerId> turned_away;  // They have waited for `patience`. Empty where one is right.
};
WaitingVerdict judge_waiting(const Roster& roster, const StateInForce& in_force, Duration patience,
                             Turn turn);

// To one that is turned away.
Reject refusal_of_newer_state(const MemberRecord& member, const StateInForce& in_force);

}  // namespace net
