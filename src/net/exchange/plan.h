// Who sums what in a round, as data: a plan is made by pure functions and sent in Open, so that the
// machines that execute it (net/exchange/exchange.h) know nothing about why it is as it is.
//
// There is one kind, "direct": every chunk has an owner among the contributors that can be dialled,
// everybody sends the owner its part, and the owner sends everybody the result. Two hops, whatever
// the number of members, and a dead sender costs only its own part. As whoever cannot be dialled
// dials the owners, no two of those need to reach each other. Another kind (a ring, shares by
// bandwidth) would be another function beside make_direct_plan.
#pragma once

#include <cstdint>
#include <vector>

#include "net/message.h"

namespace net {

// Contributors by their index in Open::contributors, as bits.
using ContributorMask = uint64_t;

struct Plan {
  std::vector<uint8_t> owners;     // Per chunk: index into the contributors.
  std::vector<uint32_t> attempts;  // Per chunk: the attempt that gave it its present owner.
};

// Those who may own a chunk: who can be dialled. A single contributor has nobody to serve.
ContributorMask possible_owners(const std::vector<Contributor>& contributors);

// Equal shares, interleaved: all owners have work from the first chunk to the last.
// REQUIRES: there are owners.
Plan make_direct_plan(int64_t chunk_count, ContributorMask owners, uint32_t attempt);

// Which chunks must get another owner, and whom, when only those in `owners` are left. The rest of
// the chunks stays where it is, so nothing that was already summed is summed again. REQUIRES:
// somebody is left.
std::vector<Reown::Move> move_chunks(const Plan& plan, ContributorMask owners);

// REQUIRES: the chunks exist.
void apply_moves(Plan& plan, const std::vector<Reown::Move>& moves, uint32_t attempt);

}  // namespace net
