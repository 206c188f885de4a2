#include "net/coordinator/standing.h"

#include <algorithm>

#include "base/log.h"
#include "net/probe.h"

namespace net {

void StandingReview::review(bool is_started, Turn turn) {
  for (auto& [peer, member] : roster_.all()) review(member, is_started, turn);
}

void StandingReview::review(MemberRecord& member, bool is_started, Turn turn) {
  const auto finding = reachability_.finding(member.peer);
  if (!finding) return;
  member.is_reachable = finding->is_reachable;
  const bool is_alone = is_alone_with_the_state(member);
  const bool must_keep_up = is_on_probation(member);
  const bool contributes = is_alone || (finding->is_reachable && !must_keep_up);
  const std::string cannot_be_dialled = fmt::format(
      "its data port cannot be dialled from here: {} ({}). Open the port, or set "
      "node.advertise",
      member.data.text(), finding->reason);
  if (is_started && is_alone && !finding->is_reachable && !member.is_told_alone) {
    probe<"who cannot be dialled is alone with the state">();
    member.is_told_alone = true;
    notify(member,
           "it trains alone: nobody else has the state, and nobody can fetch it, because " +
               cannot_be_dialled,
           turn);
  }
  if (contributes == member.contributes) return;
  member.contributes = contributes;
  if (contributes) return notify(member, "it contributes to the rounds", turn);
  if (must_keep_up) {
    return notify(member,
                  fmt::format("it receives results and contributes nothing until it has kept up "
                              "for {} rounds: {}",
                              conduct_.rounds_to_keep(member.node_key),
                              conduct_.last_offence(member.node_key)),
                  turn);
  }
  notify(member, "it receives results and contributes nothing, because " + cannot_be_dialled, turn);
}

bool StandingReview::is_alone_with_the_state(const MemberRecord& member) const {
  return std::ranges::none_of(roster_.all(), [&](const auto& entry) {
    const MemberRecord& other = entry.second;
    return other.peer != member.peer && other.is_reachable && in_force_.is_held_by(other);
  });
}

bool StandingReview::is_on_probation(const MemberRecord& member) const {
  if (!conduct_.is_on_probation(member.node_key)) return false;
  const auto sound = std::ranges::count_if(roster_.all(), [&](const auto& entry) {
    return entry.second.is_reachable && !conduct_.is_on_probation(entry.second.node_key);
  });
  probe<"who is on probation is needed">(sound < options_.members_min);
  return sound >= options_.members_min;
}

void StandingReview::notify(const MemberRecord& member, const std::string& reason,
                            Turn turn) const {
  base::log_warning("{}: {}", member.name, reason);
  speaker_.send(member.link, MessageType::kNotice,
                encode(Notice{.contributes = member.contributes, .reason = reason}), turn);
}

}  // namespace net
