// Whether this coordinator begins, with those who are here: the start of a run, or its take-over
// from a coordinator that is lost. It decides; the coordinator acts.
//
// A run that nobody knows starts when enough have come, and where the run fails over only at its
// configured address. One that is known is taken over by a quorum of its last members. They are
// here and with others at the same time, and bound to nobody before they are called up; those
// others most likely see the same, so each waits for its turn.
#pragma once

#include <map>
#include <optional>

#include "net/coordinator/electors.h"
#include "net/coordinator/state_in_force.h"

namespace net {

class Beginning {
 public:
  // All outlive the object.
  Beginning(const CoordinatorOptions& options, const Roster& roster, const StateInForce& in_force,
            Electors& electors)
      : options_(options), roster_(roster), in_force_(in_force), electors_(electors) {}

  void on_start(Instant now) { began_at_ = now; }
  // It is in the roster now.
  void came(const MemberRecord& member, Instant now);
  void has_begun();
  // Others shall take the run over, if they can. False: they had the chance not long ago.
  bool give_way(Turn turn);
  // Somebody says that it goes on elsewhere.
  void hear_of_run() { is_run_known_ = true; }

  enum class Verdict {
    kWait,
    kRelease,  // Whoever was welcomed is bound to us for nothing.
    kCallUp,   // All who are here must be welcomed, and answer.
    kBegin,
  };
  // Changes with each event and with time.
  Verdict review(Turn turn);
  // Before the start, as nobody can be elsewhere.
  bool may_be_welcome(const MemberRecord& member) const;
  // Somebody has come by the run's configured address.
  bool is_home() const;
  // Since somebody came first, of those who are here.
  bool is_grace_over(Turn turn) const { return turn.is_due(first_came_at_ + options_.start_grace); }

 private:
  bool may_start(Turn turn) const;
  Verdict take_over(const Inheritance& inherited, Turn turn);
  bool is_our_turn(const Inheritance& inherited, Turn turn) const;
  bool is_somebody_on_the_way(Turn turn) const;
  void forget_log_if_alone(Turn turn);

  const CoordinatorOptions& options_;
  const Roster& roster_;
  const StateInForce& in_force_;
  Electors& electors_;
  Instant began_at_{};
  Instant first_came_at_{};
  bool is_run_known_ = false;  // Somebody has come who was in it, as far as disks tell.
  std::map<uint64_t, Instant> remembering_;  // When who knows what was promised came last.
  std::optional<Instant> may_since_;         // We may take the run over, when it is our turn.
  std::optional<Instant> called_up_at_;
  Instant others_turn_until_ = Instant::min();
  Instant may_give_way_at_ = Instant::min();
  Duration gave_way_pause_{};  // The last one.
  uint64_t failed_count_ = 0;  // Times that those who were called up did not come.
};

}  // namespace net
