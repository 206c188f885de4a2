#include "net/coordinator/visits.h"

namespace net {
namespace {

Visits visits_of(const MemberRecord& member, const Roster& roster) {
  Visits visits;
  if (member.is_reachable || member.is_watcher()) return visits;
  for (const auto& [peer, other] : roster.all()) {
    if (peer == member.peer || !other.is_reachable) continue;
    visits.peers.push_back({.peer = peer, .data = other.data, .node_key = other.node_key});
  }
  return visits;
}

}  // namespace

void tell_visits(Roster& roster, const Reachability& reachability, const Speaker& speaker,
                 Turn turn) {
  for (auto& [peer, member] : roster.all()) {
    if (!member.is_welcome || !reachability.finding(peer)) continue;
    const Visits visits = visits_of(member, roster);
    if (!member.visits && visits.peers.empty()) continue;
    const Bytes payload = encode(visits);
    if (member.visits && *member.visits == *payload) continue;
    member.visits = payload;
    speaker.send(member.link, MessageType::kVisits, payload, turn);
  }
}

}  // namespace net
