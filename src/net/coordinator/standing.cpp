#include "net/coordinator/standing.h"

#include <algorithm>
#include <utility>

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
  if (!finding->is_reachable && !is_alone && !is_known_whom_it_can_dial(member)) return;
  const bool must_keep_up = is_on_probation(member);
  const bool can_bring = finding->is_reachable || can_dial_somebody(member);
  const bool contributes = !member.is_watcher() && (is_alone || (can_bring && !must_keep_up));
  const bool contributed = std::exchange(member.contributes, contributes);
  if (member.is_watcher() || finding->is_reachable || (is_alone && !is_started)) {
    member.port_news = PortNews::kNone;
  } else if (is_alone) {
    tell_of_port(member, *finding, PortNews::kIsAlone, turn);
  } else {
    tell_of_port(member, *finding, can_bring ? PortNews::kDialsOthers : PortNews::kNobodyCan, turn);
  }
  if (contributed == member.contributes) return;
  if (member.contributes) return notify(member, "it contributes to the rounds", turn);
  if (member.is_watcher()) {
    return notify(member, "it receives results and contributes nothing: it only watches", turn);
  }
  if (!must_keep_up) return;  // Its port is the reason, and was told.
  notify(
      member,
      fmt::format("it receives results and contributes nothing until it has kept up for {} "
                  "rounds: {}",
                  conduct_.rounds_to_keep(member.node_key), conduct_.last_offence(member.node_key)),
      turn);
}

void StandingReview::tell_of_port(MemberRecord& member, const Reachability::Finding& finding,
                                  PortNews news, Turn turn) const {
  if (std::exchange(member.port_news, news) == news) return;
  const auto what = [&] {
    switch (news) {
      case PortNews::kNone:
        return "";
      case PortNews::kDialsOthers:
        probe<"who cannot be dialled dials the others">();
        return "it dials the others, and sums nothing for them";
      case PortNews::kIsAlone:
        probe<"who cannot be dialled is alone with the state">();
        return "it trains alone: nobody else has the state, and only nodes that can be dialled can "
               "get it from this one";
      case PortNews::kNobodyCan:
        probe<"nobody can be dialled">();
        return "it contributes nothing: of all nodes of this run none can be dialled, so nobody "
               "can sum what they bring";
    }
    return "";
  };
  notify(member,
         fmt::format("{}, because its data port cannot be dialled from here: {} ({}). Open the "
                     "port, or set node.advertise",
                     what(), member.data.text(), finding.reason),
         turn);
}

bool StandingReview::can_dial_somebody(const MemberRecord& member) const {
  return std::ranges::any_of(roster_.all(), [&](const auto& entry) {
    return entry.first != member.peer && entry.second.is_reachable;
  });
}

bool StandingReview::is_known_whom_it_can_dial(const MemberRecord& member) const {
  return can_dial_somebody(member) || std::ranges::all_of(roster_.all(), [&](const auto& entry) {
           return entry.first == member.peer || reachability_.finding(entry.first).has_value();
         });
}

bool StandingReview::is_alone_with_the_state(const MemberRecord& member) const {
  return std::ranges::none_of(roster_.all(), [&](const auto& entry) {
    const MemberRecord& other = entry.second;
    return entry.first != member.peer && !other.is_watcher() && in_force_.is_held_by(other);
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
