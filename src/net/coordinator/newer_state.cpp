#include "net/coordinator/newer_state.h"

#include <algorithm>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

// A late member may know of this many commits that all others have missed: it takes their state.
// Further ahead, it or the run is not what somebody thinks.
constexpr uint64_t kLeadMax = 2;

}  // namespace

Newcomer judge_newcomer(const MemberRecord& member, const StateInForce& in_force,
                        bool adopt_newer) {
  const StateInForce::Lead lead = in_force.lead(member.states);
  if (lead.versions == 0) return Newcomer::kTakesOurs;
  // Where nothing was ever committed there is nothing to lose: a fresh node never becomes the
  // truth.
  const bool is_fresh =
      std::ranges::all_of(in_force.states(), [](const auto& state) { return state.version == 0; });
  if (adopt_newer || is_fresh) return Newcomer::kIsRight;
  probe<"who is far ahead waits for others">(lead.versions > kLeadMax);
  probe<"who is a little ahead takes the run's state">(lead.versions <= kLeadMax);
  const bool takes_ours = lead.versions <= kLeadMax;
  base::log_warning("{} has version {} of fragment {}, the run goes on from {}: {}", member.name,
                    member.states[lead.fragment].version, lead.fragment,
                    in_force.states()[lead.fragment].version,
                    takes_ours ? "it takes the run's" : "it waits for others who know of it");
  return takes_ours ? Newcomer::kTakesOurs : Newcomer::kWaits;
}

WaitingVerdict judge_waiting(const Roster& roster, const StateInForce& in_force, Duration patience,
                             Turn turn) {
  WaitingVerdict verdict;
  const MemberRecord* newest = nullptr;
  for (const auto& [peer, member] : roster.all()) {
    if (member.standing != Standing::kWaiting) continue;
    if (!newest || in_force.lead(member.states).versions > in_force.lead(newest->states).versions)
      newest = &member;
    if (turn.is_due(member.came_at + patience)) verdict.turned_away.push_back(peer);
  }
  if (!newest) return verdict;
  const StateInForce::LastEpoch last = in_force.last_epoch_of(*newest);
  const auto active = int64_t(roster.active_peers().size());
  const auto witnesses = std::ranges::count_if(roster.all(), [&](const auto& entry) {
    return entry.second.standing == Standing::kWaiting && entry.second.states == newest->states;
  });
  const bool was_the_run = 2 * last.here > last.count && last.here >= active;
  if (was_the_run || witnesses > active) return {.right = newest};
  return verdict;
}

Reject refusal_of_newer_state(const MemberRecord& member, const StateInForce& in_force) {
  const StateInForce::Lead lead = in_force.lead(member.states);
  return {.reason = fmt::format(
              "your state of fragment {} has version {}, the run goes on from {}. If yours is the "
              "run's, start the coordinator again with swarm.adopt_newer; else give this node an "
              "empty run directory",
              lead.fragment, member.states[lead.fragment].version,
              in_force.states()[lead.fragment].version)};
}

}  // namespace net
