// Which state is the run's: pure functions over what members say they have.
//
// The one idea: a higher version always wins, whoever has it, so a node that starts from nothing
// can never make an older run forget what it learnt. Among equal versions the majority's digest
// wins.
#pragma once

#include <optional>
#include <span>

#include "net/message.h"

namespace net {

// What one member says about one fragment.
struct Claim {
  PeerId peer = kNobody;
  FragmentState state;
};

// The newest version among the claims and, among the digests for it that are known, the most
// frequent one; ties go to the lowest peer. Nothing if nobody has a usable state. The digest is
// zero if nobody knows it.
std::optional<FragmentState> elect_state(std::span<const Claim> claims);

// The digest that more than half of all claims for `version` have. Claims whose digest is not known
// yet count as votes that are still to come.
std::optional<base::Digest> majority_digest(std::span<const Claim> claims, uint64_t version);

// `have` is the state in force, or may be: a digest that is not known is equal to any other.
bool is_current(const FragmentState& have, const FragmentState& in_force);

}  // namespace net
