// One open round as the coordinator sees it: who is in it, who has said Done, and what follows from
// that. It decides and remembers; sending is the coordinator's business.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "net/plan.h"
#include "net/roster.h"

namespace net {

class Round {
 public:
  struct Setup {
    Authority authority;
    Open open;  // Without owners: they are made here.
    std::vector<PeerId> receivers;
    int64_t chunk_count = 0;
    int64_t members_min = 1;
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
  void add_receiver(PeerId peer) { receivers_.emplace(peer, std::nullopt); }
  const Open& open() const { return open_; }
  const Authority& open_authority() const { return open_authority_; }
  const std::vector<std::pair<Authority, Reown>>& reowns() const { return reowns_; }

  void set_done(PeerId peer, const base::Digest& results);
  // It neither receives nor contributes any more. If it contributed, a Reown is due.
  void remove(PeerId peer);

  enum class Verdict { kGoOn, kReown, kCommit, kAbort };
  // kCommit if all receivers hold the same, or `is_overdue` and enough do.
  Verdict verdict(bool is_overdue) const;
  // REQUIRES: the verdict is kReown. Returns the message that everybody must get.
  Reown reown(Instant now);

  // What most receivers hold, and who they are. REQUIRES: the verdict is kCommit.
  struct Agreement {
    base::Digest results;
    std::vector<PeerId> peers;
  };
  Agreement agreement() const;

  // The receiver that keeps the others from going on for `stall_after`, if there is one: the one
  // that more than half of the others wait for, or else one that is not done and does not move.
  std::optional<PeerId> stalling(const Roster& roster, Instant now, Duration stall_after) const;

 private:
  std::optional<int64_t> index_of(PeerId peer) const;
  int64_t contributors_left() const;
  bool are_enough(const Agreement& agreement) const;

  Authority open_authority_;
  Authority authority_;
  Open open_;
  Plan plan_;
  int64_t members_min_;
  Instant opened_at_;
  Instant changed_at_;  // By Open or Reown.
  std::map<PeerId, std::optional<base::Digest>>
      receivers_;  // And what they hold, if they are done.
  ContributorMask excluded_ = 0;
  bool is_reown_due_ = false;
  std::vector<std::pair<Authority, Reown>> reowns_;
};

}  // namespace net
