#include "net/coordinator/held_rounds.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace net {
namespace {

// Whoever has made the version has held the round.
bool has_made(const MemberRecord& member, uint32_t fragment, uint64_t round) {
  const uint64_t version = member.states[fragment].version;
  return version != kNoVersion && version >= round;
}

bool could_have_a_quorum(const Roster& roster, const std::vector<Electorate>& electorates,
                         const HeldRound& candidate, const std::set<uint64_t>& holders) {
  std::set<uint64_t> possible = holders;
  for (const Electorate& electorate : electorates) {
    for (const uint64_t voter : electorate.voters) {
      const MemberRecord* const member = roster.find_node(voter);
      if (!member || has_made(*member, candidate.fragment, candidate.round)) possible.insert(voter);
    }
  }
  return std::ranges::all_of(electorates, [&](const Electorate& electorate) {
    return is_quorum(electorate, possible, true);
  });
}

}  // namespace

std::optional<HeldRound> last_committable(const Roster& roster,
                                          const std::vector<Electorate>& electorates,
                                          uint32_t fragment, uint64_t version) {
  struct Holders {
    HeldRound held;
    std::set<uint64_t> nodes;
    bool can_be_made = false;  // One of them has the version before.
  };
  using Order = std::tuple<uint64_t, uint32_t, uint32_t, base::Digest>;
  std::map<Order, Holders> candidates;
  for (const auto& [peer, member] : roster.all()) {
    for (const HeldRound& held : member.held) {
      if (held.fragment != fragment || held.round < version || held.round > version + 1) continue;
      Holders& holders = candidates[{held.round, held.term, held.attempt, held.results}];
      holders.held = held;
      holders.nodes.insert(member.node_key);
      holders.can_be_made |= member.states[fragment].version + 1 == held.round;
    }
  }
  const Holders* last = nullptr;
  for (const auto& [order, holders] : candidates) {
    if (!holders.can_be_made && holders.held.round > version) continue;
    if (!could_have_a_quorum(roster, electorates, holders.held, holders.nodes)) continue;
    const auto opened = [](const HeldRound& one) {
      return std::tuple(one.round, one.term, one.attempt);
    };
    const bool is_newer = !last || opened(holders.held) > opened(last->held);
    if (is_newer || holders.nodes.size() > last->nodes.size()) last = &holders;
  }
  return last ? std::optional(last->held) : std::nullopt;
}

}  // namespace net
