#include "net/roster.h"

#include <algorithm>

namespace net {
namespace {

MemberRecord* find_if(std::map<PeerId, MemberRecord>& members, auto is_it) {
  const auto found =
      std::ranges::find_if(members, [&](auto& entry) { return is_it(entry.second); });
  return found == members.end() ? nullptr : &found->second;
}

}  // namespace

MemberRecord* Roster::add(MemberRecord record, const std::set<PeerId>& reserved) {
  for (PeerId i = 0; i < kMembersMax; ++i) {
    const PeerId peer = (next_ + i) % kMembersMax;
    if (members_.contains(peer) || reserved.contains(peer)) continue;
    record.peer = peer;
    next_ = peer + 1;
    return &members_.emplace(peer, std::move(record)).first->second;
  }
  return nullptr;
}

MemberRecord* Roster::find(PeerId peer) {
  const auto found = members_.find(peer);
  return found == members_.end() ? nullptr : &found->second;
}

MemberRecord* Roster::find_link(LinkId link) {
  return find_if(members_, [&](const MemberRecord& member) { return member.link == link; });
}

MemberRecord* Roster::find_node(uint64_t node_key) {
  return find_if(members_, [&](const MemberRecord& member) { return member.node_key == node_key; });
}

bool Roster::has_node(uint64_t node_key) const {
  return std::ranges::any_of(members_,
                             [&](const auto& entry) { return entry.second.node_key == node_key; });
}

std::vector<PeerId> Roster::peers() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, member] : members_) peers.push_back(peer);
  return peers;
}

std::vector<PeerId> Roster::active_peers() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, member] : members_) {
    if (member.is_active()) peers.push_back(peer);
  }
  return peers;
}

}  // namespace net
