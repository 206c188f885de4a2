#include "net/coordinator/held_rounds.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace net {
namespace {

// Whoever is not here, or was started again since, may have held it.
bool could_have_a_quorum(const Roster& roster, const std::vector<Electorate>& electorates,
                         const std::set<uint64_t>& holders) {
  std::set<uint64_t> possible = holders;
  for (const Electorate& electorate : electorates) {
    for (const uint64_t voter : electorate.voters) {
      const MemberRecord* const member = roster.find_node(voter);
      if (!member || !member->remembers) possible.insert(voter);
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
    bool is_made = false;      // One of them says that it is what its version was made by.
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
      holders.is_made |= member.states[fragment].version == held.round;
      holders.can_be_made |= member.states[fragment].version + 1 == held.round;
    }
  }
  const Holders* last = nullptr;
  for (const auto& [order, holders] : candidates) {
    const bool is_committed = holders.held.round == version && holders.is_made;
    const bool may_be = holders.held.round > version && holders.can_be_made &&
                        could_have_a_quorum(roster, electorates, holders.nodes);
    if (!is_committed && !may_be) continue;
    const auto opened = [](const HeldRound& one) {
      return std::tuple(one.round, one.term, one.attempt);
    };
    const bool is_newer = !last || opened(holders.held) > opened(last->held);
    if (is_newer || holders.nodes.size() > last->nodes.size()) last = &holders;
  }
  return last ? std::optional(last->held) : std::nullopt;
}

}  // namespace net
