#include "net/coordinator/roster.h"

#include <algorithm>

namespace net {
namespace {

// So many nodes may come and go before old numbers are forgotten.
constexpr size_t kNumbersKeptMax = 4096;

MemberRecord* find_if(std::map<PeerId, MemberRecord>& members, auto is_it) {
  const auto found =
      std::ranges::find_if(members, [&](auto& entry) { return is_it(entry.second); });
  return found == members.end() ? nullptr : &found->second;
}

}  // namespace

MemberRecord* Roster::add(MemberRecord record, const std::set<PeerId>& reserved) {
  const auto is_free = [&](PeerId peer) {
    return peer < kMembersMax && !members_.contains(peer) && !reserved.contains(peer);
  };
  if (last_numbers_.size() >= kNumbersKeptMax) last_numbers_.clear();
  record.peer = last_numbers_.try_emplace(record.node_key, kNobody).first->second;
  if (!is_free(record.peer)) {
    record.peer = 0;
    while (record.peer < kMembersMax && !is_free(record.peer)) ++record.peer;
  }
  if (!is_free(record.peer)) return nullptr;
  last_numbers_[record.node_key] = record.peer;
  return &members_.emplace(record.peer, std::move(record)).first->second;
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

const MemberRecord* Roster::find_node(uint64_t node_key) const {
  return const_cast<Roster*>(this)->find_node(node_key);
}

bool Roster::has_node(uint64_t node_key) const {
  return find_node(node_key) != nullptr;
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
