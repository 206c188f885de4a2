// Who keeps a round from going on: a pure function over what its members say of each other.
//
// The one idea: follow the debts to their end. A contribution depends on nobody but its sender, so
// whoever owes one has no excuse. A result depends on the contributions that its owner still lacks,
// so an owner that lacks some is not to blame for it. And what one member says of most others says
// more about its own line than about theirs: it needs other witnesses.
//
//   unreachable     most others could not dial it
//   contributions   most owners wait for its part
//   results         most others wait for its results, and it has all parts
//   itself          it complains of most others, whom nobody else complains of; or it lacks
//   nothing,
//                   or is the only one that is not done, and does not move
#pragma once

#include <optional>
#include <span>
#include <string>

#include "net/exchange/plan.h"
#include "net/types.h"

namespace net {

// What is known of one member that is waited for in the round. Masks: bit i is peer i, and only
// complaints that are old enough are in them.
struct Witness {
  PeerId peer = kNobody;
  bool is_contributor = false;
  bool is_owner = false;
  bool is_done = false;
  bool has_moved = false;   // A chunk came or was summed within the patience.
  bool is_excused = false;  // It lacked contributions within the patience.
  bool lacks_any = false;   // By its last heartbeat.
  int64_t offences = 0;     // Of ties the one with more goes,
  int64_t came_as = 0;      // and then the one that came last.
  uint64_t cannot_dial = 0;
  uint64_t waits_for_contribution = 0;
  uint64_t waits_for_result = 0;
};

struct Blame {
  PeerId peer = kNobody;
  std::string why;  // Goes on "NAME ...".
};

std::optional<Blame> find_blame(std::span<const Witness> witnesses);

}  // namespace net
