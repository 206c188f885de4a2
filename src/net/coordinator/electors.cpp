#include "net/coordinator/electors.h"

#include <algorithm>

#include "net/probe.h"

namespace net {

bool Inheritance::has_voter(uint64_t node_key) const {
  return std::ranges::any_of(electorates, [&](const Electorate& one) {
    return std::ranges::find(one.voters, node_key) != one.voters.end();
  });
}

std::optional<Inheritance> Electors::inheritance() const {
  const RunLog& log = options_.log;
  Inheritance newest;
  if (!is_log_forgotten_) {
    newest = {.term = log.list_term, .epoch = log.epoch, .electorates = log.list.electorates};
  }
  for (const auto& [peer, member] : roster_.all()) {
    const Inheritance said{
        .term = member.list_term, .epoch = member.list_epoch, .electorates = member.electorates};
    if (!said.electorates.empty() && said.order() >= newest.order()) newest = said;
  }
  if (newest.electorates.empty()) return std::nullopt;
  return newest;
}

std::set<uint64_t> Electors::present(Here who) const {
  const bool must_be_fenced = who == Here::kFenced || who == Here::kFencedAndRemembers;
  const bool must_remember = who == Here::kRemembers || who == Here::kFencedAndRemembers;
  std::set<uint64_t> present;
  for (const auto& [peer, member] : roster_.all()) {
    if (must_be_fenced && !member.is_fenced) continue;
    if (must_remember && !(member.remembers && !member.electorates.empty())) continue;
    present.insert(member.node_key);
  }
  return present;
}

bool Electors::is_quorum_here(const Inheritance& inherited, Here who) const {
  const std::set<uint64_t> here = present(who);
  return std::ranges::all_of(inherited.electorates, [&](const Electorate& electorate) {
    return net::is_quorum(electorate, here, false);
  });
}

bool Electors::is_everybody_here(const Inheritance& inherited, Here who) const {
  const std::set<uint64_t> here = present(who);
  return std::ranges::all_of(inherited.electorates, [&](const Electorate& electorate) {
    return std::ranges::all_of(electorate.voters, [&](uint64_t key) { return here.contains(key); });
  });
}

bool Electors::is_deposed_by(const MemberRecord& member, const Speaker& speaker) const {
  if (member.electorates.empty() || member.coordinator == options_.identity) return false;
  return std::tuple(member.list_term, member.list_epoch) >
         std::tuple(speaker.term(), speaker.epoch());
}

void Electors::begin(const std::optional<Inheritance>& inherited) {
  electorates_.begin(inherited ? inherited->electorates : std::vector<Electorate>{});
  told_at_ = UINT64_MAX;
  left_.clear();
}

Membership Electors::next(const Speaker& speaker) {
  const std::vector<uint64_t> now = voters();
  const bool is_first = told_at_ == UINT64_MAX;
  if (is_first) told_at_ = speaker.epoch();
  if (is_outdated()) {
    electorates_.add({.voters = now, .tie_breaker = tie_breaker(now)});
    told_at_ = speaker.epoch();
  }
  Membership membership{.members = {}, .electorates = electorates_.list()};
  for (const PeerId peer : roster_.active_peers()) {
    const MemberRecord& member = roster_.all().at(peer);
    membership.members.push_back({.peer = peer,
                                  .node_key = member.node_key,
                                  .data = member.data,
                                  .is_reachable = member.is_reachable});
  }
  return membership;
}

// A list without anybody would bind nobody, and one of a few, while the others are on their way,
// could not do without them.
bool Electors::is_outdated() const {
  const std::vector<uint64_t> now = voters();
  if (!options_.fail_over || now.empty() || !electorates_.is_settled()) return false;
  std::set<uint64_t> agreeing = left_;
  agreeing.insert(now.begin(), now.end());
  if (!electorates_.is_quorum(agreeing)) return false;
  return electorates_.list().empty() || electorates_.list().back().voters != now;
}

bool Electors::settle() {
  std::set<uint64_t> informed = left_;
  for (const auto& [peer, member] : roster_.all()) {
    if (member.known_epoch >= told_at_) informed.insert(member.node_key);
  }
  return electorates_.settle(informed);
}

bool Electors::is_quorum(const std::vector<PeerId>& peers) const {
  std::set<uint64_t> keys = left_;
  for (const PeerId peer : peers) keys.insert(roster_.all().at(peer).node_key);
  return !options_.fail_over || electorates_.is_quorum(keys);
}

bool Electors::is_quorum_fenced() const {
  std::vector<PeerId> fenced;
  for (const auto& [peer, member] : roster_.all()) {
    if (member.is_fenced) fenced.push_back(peer);
  }
  return is_quorum(fenced);
}

// Who only receives has no say, unless there is nobody else.
std::vector<uint64_t> Electors::voters() const {
  std::vector<uint64_t> voters, others;
  for (const PeerId peer : roster_.active_peers()) {
    const MemberRecord& member = roster_.all().at(peer);
    (member.contributes ? voters : others).push_back(member.node_key);
  }
  return voters.empty() ? others : voters;
}

uint64_t Electors::tie_breaker(const std::vector<uint64_t>& voters) const {
  if (options_.tie_breaker.empty()) return 0;
  for (const auto& [peer, member] : roster_.all()) {
    const bool votes = std::ranges::find(voters, member.node_key) != voters.end();
    if (votes && member.name == options_.tie_breaker) return member.node_key;
  }
  return 0;
}

}  // namespace net
