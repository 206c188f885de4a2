// What the coordinator before us may have committed and not told to all: a pure function over what
// members hold.
#pragma once

#include <optional>

#include "net/coordinator/electorate.h"
#include "net/coordinator/roster.h"

namespace net {

// A commit needs a quorum that holds the round, and each quorum of the same voters has one of them.
// So a round that could not have had a quorum, even if all voters who are not here held it, was not
// committed. Of the others that make the version after `version`: the one that was opened last. If
// there is none, the one that made `version`, if somebody says which it was.
std::optional<HeldRound> last_committable(const Roster& roster,
                                          const std::vector<Electorate>& electorates,
                                          uint32_t fragment, uint64_t version);

}  // namespace net
