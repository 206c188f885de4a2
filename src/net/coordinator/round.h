// One open round as the coordinator sees it: who is in it, who has said Done, and what follows from
// that. It decides and remembers; sending is the coordinator's business.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "net/coordinator/blame.h"
#include "net/coordinator/conduct.h"
#include "net/coordinator/roster.h"
#include "net/exchange/plan.h"
#include "net/turn.h"

namespace net {

class Round {
 public:
  struct Setup {
    Authority authority;
    Open open;                      // With owners, some of whom can be dialled, and a plan.
    std::vector<PeerId> receivers;  // Waited for.
    std::vector<PeerId> guests;     // Receive as well, if they keep up.
    int64_t members_min = 1;
    Duration guest_lead{};  // How long guests may take after all others are done.
    Instant opened_at{};
  };
  explicit Round(Setup setup);

  const Authority& authority() const { return authority_; }  // With the newest attempt.
  Instant opened_at() const { return opened_at_; }
  uint64_t step() const { return open_.step; }
  bool is_receiver(PeerId peer) const { return receivers_.contains(peer); }
  bool is_contributor(PeerId peer) const { return index_of(peer).has_value(); }
  std::vector<PeerId> receivers() const;
  // Numbers that stand in it: nobody else may get them while it is open.
  std::set<PeerId> numbers() const;

  // What a receiver must be told, in this order: the Open, and every Reown since.
  void add_receiver(PeerId peer, bool is_guest);
  const Open& open() const { return open_; }
  const Plan& plan() const { return plan_; }  // As it is now.
  // Some chunks are not summed directly.
  bool has_trees() const;
  // They shall be: a Reown is due, though nobody is out.
  void become_direct();
  const Authority& open_authority() const { return open_authority_; }
  const std::vector<std::pair<Authority, Reown>>& reowns() const { return reowns_; }

  void set_done(PeerId peer, const base::Digest& results, Instant now);
  // It neither receives nor contributes any more. If it contributed, a Reown is due.
  void remove(PeerId peer);

  enum class Verdict { kGoOn, kReown, kCommit, kAbort };
  // kCommit if all that are waited for hold results and enough the same ones, or `is_overdue` and
  // enough do. Enough: members_min contributors, and half of those for whom the round was opened; a
  // run that a few could take over would not be the run.
  Verdict verdict(bool is_overdue, Turn turn) const;
  // REQUIRES: the verdict is kReown. Returns the message that everybody must get.
  Reown reown(Instant now);

  // What most contributors hold, and who holds it. REQUIRES: the verdict is kCommit.
  struct Agreement {
    base::Digest results;
    std::vector<PeerId> peers;
  };
  Agreement agreement() const;

  // Who keeps the others from going on, by what they have said for `patience`; or, without one, by
  // what they said last.
  std::optional<Blame> blame(const Roster& roster, const Conduct& conduct, Turn turn,
                             std::optional<Duration> patience) const;
  // Of a round with trees: nobody has moved for so long, or somebody has waited for what depends on
  // nobody else. In a tree few see what one does, so nobody is to blame for that: it becomes
  // direct.
  bool is_stuck(const Roster& roster, Duration patience, Turn turn) const;
  // Of those who are waited for, the ones that are not done.
  std::vector<PeerId> late() const;
  // Since it was opened, or one was left out because it had taken too long.
  Instant deadline_from() const { return deadline_from_; }
  void extend(Instant now) { deadline_from_ = now; }
  bool is_guest(PeerId peer) const { return guests_.contains(peer); }

 private:
  std::optional<int64_t> index_of(PeerId peer) const;
  int64_t contributors_left() const;
  bool is_enough(int64_t contributor_count) const;
  int64_t contributors_among(const std::vector<PeerId>& peers) const;
  bool is_owner(PeerId peer) const;
  Witness witness(const MemberRecord& member, Turn turn, std::optional<Duration> patience) const;

  Authority open_authority_;
  Authority authority_;
  Open open_;
  ContributorMask owners_;  // Who may be one.
  Plan plan_;
  int64_t members_min_;
  Instant opened_at_;
  Duration guest_lead_;
  Instant changed_at_;   // By Open or Reown.
  Instant judged_from_;  // What members say of each other: opened, or all became direct.
  Instant deadline_from_;
  Instant done_at_{};  // When the last Done came.
  std::map<PeerId, std::optional<base::Digest>>
      receivers_;  // And what they hold, if they are done.
  std::set<PeerId> guests_;
  ContributorMask excluded_ = 0;
  bool is_reown_due_ = false;
  bool is_direct_due_ = false;
  std::vector<std::pair<Authority, Reown>> reowns_;
};

}  // namespace net
