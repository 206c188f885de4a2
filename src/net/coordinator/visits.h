// Who cannot be dialled is told whom to dial instead: all who can be. So every two of which one can
// be dialled reach each other, whichever of them wants something.
#pragma once

#include "net/coordinator/reachability.h"
#include "net/coordinator/roster.h"
#include "net/coordinator/speaker.h"

namespace net {

// Tells each member that this concerns, whenever it changes.
void tell_visits(Roster& roster, const Reachability& reachability, const Speaker& speaker,
                 Turn turn);

}  // namespace net
