// The coordinator's rounds: opens one for a fragment when enough members are ready, tells its
// receivers what they must know, and ends it by Commit or Abort. What one round's state means is
// decided in net/coordinator/round.h.
#pragma once

#include <optional>
#include <vector>

#include "net/coordinator/electors.h"
#include "net/coordinator/inquiry.h"
#include "net/coordinator/planner.h"
#include "net/coordinator/round.h"
#include "net/coordinator/speaker.h"

namespace net {

class RoundKeeper {
 public:
  // All outlive the object. `in_force` is changed by commits, together with the members' states.
  RoundKeeper(const CoordinatorOptions& options, Roster& roster,
              std::vector<FragmentState>& in_force, const Speaker& speaker, Conduct& conduct,
              const Electors& electors);

  // Fails if the run cannot be where it says.
  base::Result<void> on_ready(MemberRecord& member, const Authority& authority, const Ready& ready);
  void on_done(const MemberRecord& member, const Authority& authority, const Done& done,
               Instant now);

  void on_audited(const MemberRecord& member, const Authority& authority, const Audited& audited,
                  Turn turn) {
    inquiries_.on_audited(member, authority, audited, turn);
  }

  void on_measured(const MemberRecord& member, const Measured& measured);

  // An active member that was not there when the open rounds began receives their results as well.
  void add_receiver(const MemberRecord& member, Turn turn);
  void remove(PeerId peer);
  void abort(int64_t fragment, const std::string& reason, Turn turn);

  // The run was another coordinator's: what that one may have committed last is in force, though
  // nobody has made it yet.
  void inherit_held(const std::vector<Electorate>& electorates);
  // Whoever holds the results of the last commit and was not told so is.
  void commit_held(Turn turn);

  // For somebody who is about to be in step: no commit for a moment, but seldom.
  void hold_commits(Duration moment, Instant now);
  void release_commits() { held_until_ = {}; }

  // Everything that follows from what is known now.
  void review(Turn turn);

  // Peer ids that stand in open rounds.
  std::set<PeerId> numbers() const;
  Instant committed_at(int64_t fragment) const { return slots_[size_t(fragment)].committed_at; }
  int64_t committed_count() const { return committed_count_; }
  // The run's position: the step of its last commit. What nodes did since may still be lost.
  uint64_t committed_step() const { return committed_step_; }
  void set_committed_step(uint64_t step) { committed_step_ = step; }

 private:
  struct Slot {  // Of one fragment.
    std::optional<Round> round;
    std::optional<Instant> ready_since;  // Enough members to open a round.
    uint32_t attempt = 0;  // The last one of this round number: an aborted round is not mistaken
                           // for its successor.
    Instant committed_at{};
    std::optional<Commit> committed;  // The last one.
  };

  void review_ready(int64_t fragment, Turn turn);
  void review_round(int64_t fragment, Turn turn);
  bool is_awaited(const MemberRecord& member) const;
  std::vector<PeerId> awaited_members(int64_t fragment, const std::vector<PeerId>& ready) const;
  std::vector<PeerId> current_members(int64_t fragment) const;
  void open(int64_t fragment, const std::vector<PeerId>& ready,
            std::vector<Contributor> contributors, Turn turn);
  void tell_open(const Round& round, const MemberRecord& member, Turn turn) const;
  bool can_be_made(int64_t fragment, const std::vector<Contributor>& all) const;
  std::vector<Contributor> contributors(int64_t fragment, const std::vector<PeerId>& ready) const;
  int64_t believable_weight(const MemberRecord& member, const Ready& ready) const;
  bool become_direct_if_stuck(int64_t fragment, Turn turn);
  void exclude_blamed(int64_t fragment, bool is_overdue, Turn turn);
  void exclude(int64_t fragment, const Blame& blame, Turn turn);
  void reown(int64_t fragment, Turn turn);
  void commit_if_quorum(int64_t fragment, bool is_overdue, Turn turn);
  void commit(int64_t fragment, Turn turn);

  const CoordinatorOptions& options_;
  Roster& roster_;
  std::vector<FragmentState>& in_force_;
  const Speaker& speaker_;
  Conduct& conduct_;
  Inquiries inquiries_;
  const Electors& electors_;
  Planner planner_;
  std::vector<Slot> slots_;
  Instant held_until_{};    // Commits are,
  Instant hold_next_at_{};  // and may be again.
  int64_t committed_count_ = 0;
  uint64_t committed_step_ = 0;
};

}  // namespace net
