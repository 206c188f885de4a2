// The run's state as the coordinator knows it: versions and digests, who holds it, and how it comes
// into force. The pure rules are in net/coordinator/lineage.h.
#pragma once

#include <vector>

#include "net/coordinator/lineage.h"
#include "net/coordinator/roster.h"
#include "net/turn.h"

namespace net {

class StateInForce {
 public:
  StateInForce(int64_t fragment_count, const Roster& roster)
      : roster_(roster), states_(size_t(fragment_count)) {}

  // Rounds change it, together with the members' states.
  std::vector<FragmentState>& states() { return states_; }
  const std::vector<FragmentState>& states() const { return states_; }

  // From what all members have. False if nobody has a usable state of some fragment.
  bool elect();
  // The last list of active members that some member knows: how many of them are here, and how many
  // they were. Both 0 if none is known.
  struct LastEpoch {
    int64_t here = 0;
    int64_t count = 0;
  };
  LastEpoch last_epoch() const;  // The newest one.
  LastEpoch last_epoch_of(const MemberRecord& member) const;

  // By how many versions `states` is ahead of it, at most, and in which fragment.
  struct Lead {
    uint64_t versions = 0;
    size_t fragment = 0;
  };
  Lead lead(const std::vector<FragmentState>& states) const;

  // After a commit: which digest the new state has, by the majority of those who contributed to
  // it. Who only receives has no vote. From `overdue_at` on no more votes are waited for.
  void settle_digest(int64_t fragment, Instant overdue_at, Turn turn);
  // What somebody says who has made that commit and is not active any more: it counts if nobody is.
  void hear_last(int64_t fragment, const FragmentState& said);

  bool is_held_by(const MemberRecord& member) const;
  // The same for one that comes with a state of its own: what it has must have been compared, if
  // somebody is about to say the digest of the last commit.
  bool is_shown_by(const MemberRecord& member) const;
  bool is_lost(size_t fragment) const;  // Nobody holds it.
  // What a member must be told, with those who can give it something.
  CatchUp catch_up_for(const MemberRecord& member, uint64_t committed_step) const;

 private:
  bool has_say(const MemberRecord& member, int64_t fragment) const;
  std::vector<Claim> claims(int64_t fragment, bool only_voters) const;
  bool holds_some(const MemberRecord& member) const;

  const Roster& roster_;
  std::vector<FragmentState> states_;
};

}  // namespace net
