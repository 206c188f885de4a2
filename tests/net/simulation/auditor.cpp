#include "net/simulation/auditor.h"

#include <algorithm>
#include <set>

#include "net/cluster.h"

namespace net {

void Auditor::hear(HostId from, HostId to, const Message& message) {
  const Authority& authority = message.authority;
  const RoundKey key{authority.term, authority.fragment, authority.round};
  if (message.type == MessageType::kOpen && from == kCoordinatorHost) {
    auto& contributors = rounds_[key].contributors[authority.attempt];
    contributors.clear();
    const auto open = decode<Open>(*message.payload);
    for (const Contributor& one : open->contributors) contributors.push_back(one.peer);
  } else if (message.type == MessageType::kDone && to == kCoordinatorHost) {
    const auto done = decode<Done>(*message.payload);
    rounds_[key].done[authority.attempt][from].push_back({message.source, done->results});
  } else if (message.type == MessageType::kCommit && from == kCoordinatorHost) {
    check(to, authority, *decode<Commit>(*message.payload));
  }
}

void Auditor::check(HostId to, const Authority& authority, const Commit& commit) {
  Heard& heard = rounds_[{authority.term, authority.fragment, authority.round}];
  const auto violated = [&](const char* what) {
    oracle_.violated(fmt::format("round {} of fragment {} in term {}, attempt {}: {}",
                                 authority.round, authority.fragment, authority.term,
                                 authority.attempt, what));
  };
  if (heard.results && *heard.results != commit.results) violated("committed with two results");
  heard.results = commit.results;
  const auto& said = heard.done[authority.attempt][to];
  const auto is_it = [&](const Said& one) { return one.results == commit.results; };
  if (std::ranges::none_of(said, is_it)) violated("committed at a member that does not hold it");
  if (!has_enough(heard, authority.attempt, commit.results)) violated("committed by too few");
}

bool Auditor::has_enough(const Heard& heard, uint32_t attempt, const base::Digest& results) const {
  const auto after = heard.contributors.upper_bound(attempt);
  if (after == heard.contributors.begin()) return false;
  const std::vector<PeerId>& contributors = std::prev(after)->second;
  std::set<PeerId> holders;
  for (const auto& [host, all] : heard.done.at(attempt)) {
    for (const Said& one : all) {
      if (one.results == results) holders.insert(one.peer);
    }
  }
  std::erase_if(holders, [&](PeerId peer) {
    return std::ranges::find(contributors, peer) == contributors.end();
  });
  const auto count = int64_t(holders.size()), all = int64_t(contributors.size());
  return count >= std::min(members_min_, all) && 2 * count >= all;
}

}  // namespace net
