// Whether a member contributes to rounds: who cannot be dialled dials the others, so one that can
// be must be there; and who was left out must first show that it keeps up, if there are enough
// others for a round to show it in. Who alone has the state is asked by nobody. Who has no data
// port only watches. A member hears of every change, with the reason.
#pragma once

#include <string>

#include "net/coordinator.h"
#include "net/coordinator/conduct.h"
#include "net/coordinator/reachability.h"
#include "net/coordinator/speaker.h"
#include "net/coordinator/state_in_force.h"

namespace net {

class StandingReview {
 public:
  // All outlive the object.
  StandingReview(const CoordinatorOptions& options, Roster& roster, const StateInForce& in_force,
                 const Reachability& reachability, const Conduct& conduct, const Speaker& speaker)
      : options_(options),
        roster_(roster),
        in_force_(in_force),
        reachability_(reachability),
        conduct_(conduct),
        speaker_(speaker) {}

  // Of all members, by what is known now.
  void review(bool is_started, Turn turn);
  // The coordinator's words about a member, in the log and to itself.
  void notify(const MemberRecord& member, const std::string& reason, Turn turn) const;

 private:
  void review(MemberRecord& member, bool is_started, Turn turn);
  void tell_of_port(MemberRecord& member, const Reachability::Finding& finding, PortNews news,
                    Turn turn) const;
  bool can_dial_somebody(const MemberRecord& member) const;
  bool is_known_whom_it_can_dial(const MemberRecord& member) const;
  bool is_alone_with_the_state(const MemberRecord& member) const;
  bool is_on_probation(const MemberRecord& member) const;

  const CoordinatorOptions& options_;
  Roster& roster_;
  const StateInForce& in_force_;
  const Reachability& reachability_;
  const Conduct& conduct_;
  const Speaker& speaker_;
};

}  // namespace net
