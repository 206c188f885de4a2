#include "net/coordinator/state_in_force.h"

#include <algorithm>
#include <tuple>

#include "net/probe.h"

namespace net {
namespace {

auto epoch_of(const MemberRecord& member) {
  return std::tuple(member.last_term, member.last_epoch, member.last_member_count);
}

}  // namespace

bool StateInForce::elect() {
  std::vector<FragmentState> elected;
  for (size_t fragment = 0; fragment < states_.size(); ++fragment) {
    const auto state = elect_state(claims(int64_t(fragment), false));
    if (!state) return false;
    elected.push_back(*state);
  }
  states_ = std::move(elected);
  return true;
}

StateInForce::LastEpoch StateInForce::last_epoch() const {
  const MemberRecord* newest = nullptr;
  for (const auto& [peer, member] : roster_.all()) {
    if (!newest || epoch_of(member) > epoch_of(*newest)) newest = &member;
  }
  return newest ? last_epoch_of(*newest) : LastEpoch{};
}

StateInForce::LastEpoch StateInForce::last_epoch_of(const MemberRecord& member) const {
  if (member.last_member_count == 0) return {};
  const auto here = std::ranges::count_if(
      roster_.all(), [&](const auto& entry) { return epoch_of(entry.second) == epoch_of(member); });
  return {.here = here, .count = int64_t(member.last_member_count)};
}

StateInForce::Lead StateInForce::lead(const std::vector<FragmentState>& states) const {
  Lead lead;
  for (size_t fragment = 0; fragment < states_.size(); ++fragment) {
    const uint64_t version = states[fragment].version;
    if (version == kNoVersion || version <= states_[fragment].version) continue;
    const uint64_t ahead = version - states_[fragment].version;
    if (ahead > lead.versions) lead = {.versions = ahead, .fragment = fragment};
  }
  return lead;
}

void StateInForce::settle_digest(int64_t fragment, Instant overdue_at, Turn turn) {
  FragmentState& state = states_[size_t(fragment)];
  if (!state.digest.is_zero()) return;
  const auto voters = claims(fragment, true);
  if (const auto digest = majority_digest(voters, state.version)) state.digest = *digest;
  const auto is_open = [&](const Claim& claim) {
    return claim.state.version == state.version && claim.state.digest.is_zero();
  };
  const bool have_all_voted = std::ranges::none_of(voters, is_open);
  if (!state.digest.is_zero() || (!have_all_voted && !turn.is_due(overdue_at))) return;
  probe<"a digest is settled without all votes">(!have_all_voted);
  probe<"a digest has no majority">(have_all_voted);
  const auto elected = elect_state(voters);
  if (elected && elected->version == state.version) state.digest = elected->digest;
}

void StateInForce::hear_last(int64_t fragment, const FragmentState& said) {
  FragmentState& state = states_[size_t(fragment)];
  if (!state.digest.is_zero() || said.version != state.version) return;
  const bool is_any_active = std::ranges::any_of(roster_.all(), [&](const auto& entry) {
    return entry.second.is_active() &&
           entry.second.states[size_t(fragment)].version == state.version;
  });
  probe<"a digest is settled by one that is not active any more">(!is_any_active);
  if (!is_any_active) state.digest = said.digest;
}

// Those whose work is in the last commit: others may be so slow that they apply it when there is
// another one already. Where none of them is left, those who contribute at all.
bool StateInForce::has_say(const MemberRecord& member, int64_t fragment) const {
  const auto contributed = [&](const MemberRecord& one) {
    const auto round = one.contributed_round.find(fragment);
    return one.is_active() && round != one.contributed_round.end() &&
           round->second == states_[size_t(fragment)].version;
  };
  const bool has_contributors = std::ranges::any_of(
      roster_.all(), [&](const auto& entry) { return contributed(entry.second); });
  return has_contributors ? contributed(member) : member.is_active() && member.contributes;
}

std::vector<Claim> StateInForce::claims(int64_t fragment, bool only_voters) const {
  const bool has_voters = std::ranges::any_of(
      roster_.all(), [&](const auto& entry) { return has_say(entry.second, fragment); });
  std::vector<Claim> claims;
  for (const auto& [peer, member] : roster_.all()) {
    const bool may_vote = has_voters ? has_say(member, fragment) : member.is_active();
    if (only_voters && !may_vote) continue;
    claims.push_back({.peer = peer, .state = member.states[size_t(fragment)]});
  }
  return claims;
}

bool StateInForce::holds_some(const MemberRecord& member) const {
  for (size_t fragment = 0; fragment < states_.size(); ++fragment) {
    if (is_current(member.states[fragment], states_[fragment])) return true;
  }
  return false;
}

bool StateInForce::is_held_by(const MemberRecord& member) const {
  for (size_t fragment = 0; fragment < states_.size(); ++fragment) {
    if (!is_current(member.states[fragment], states_[fragment])) return false;
  }
  return true;
}

// A version alone names no state: another coordinator of the run may have made one of that number.
bool StateInForce::is_shown_by(const MemberRecord& member) const {
  for (size_t fragment = 0; fragment < states_.size(); ++fragment) {
    const FragmentState& state = states_[fragment];
    const bool is_to_come = std::ranges::any_of(roster_.all(), [&](const auto& entry) {
      const FragmentState& other = entry.second.states[fragment];
      return other.version == state.version && other.digest.is_zero();
    });
    probe<"a member comes when the digest of the last commit is to come">(state.digest.is_zero() &&
                                                                          is_to_come);
    if (state.digest.is_zero() && is_to_come) return false;
  }
  return is_held_by(member);
}

bool StateInForce::is_lost(size_t fragment) const {
  return std::ranges::none_of(roster_.all(), [&](const auto& entry) {
    return is_current(entry.second.states[fragment], states_[fragment]);
  });
}

// Nobody is made to dial an address that did not prove its owner. Who cannot be dialled dials those
// who can (net/coordinator/visits.h).
CatchUp StateInForce::catch_up_for(const MemberRecord& member, uint64_t committed_step) const {
  CatchUp catch_up{.states = states_, .donors = {}, .step = committed_step};
  for (const auto& [peer, donor] : roster_.all()) {
    if (peer == member.peer || !holds_some(donor)) continue;
    const bool dials_member = donor.visits && member.is_reachable;
    if (!donor.is_reachable && !dials_member) continue;
    catch_up.donors.push_back({.peer = peer,
                               .data = donor.is_reachable ? donor.data : Endpoint{},
                               .node_key = donor.node_key});
  }
  return catch_up;
}

}  // namespace net
