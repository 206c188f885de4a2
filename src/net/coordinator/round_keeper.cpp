#include "net/coordinator/round_keeper.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/log.h"
#include "net/coordinator/held_rounds.h"
#include "net/coordinator/lineage.h"
#include "net/probe.h"

namespace net {
namespace {

// Nodes may have other batches than the coordinator's config says, but not more than so many times.
constexpr uint64_t kBatchesMax = 64;
// A node that was left out for a while brings the work of several rounds.
constexpr int64_t kWeightsMax = 16;

// Commits wait for others at most for a tenth of the time.
constexpr int64_t kHeldShare = 10;

double to_seconds(Duration time) {
  return std::chrono::duration<double>(time).count();
}

// Somebody must sum what the others bring, though he has trained on nothing himself: that counts
// with one token.
void give_owner_weight(std::vector<Contributor>& contributors) {
  const auto can_own = [](const Contributor& one) { return !one.data.host.empty(); };
  const auto has_weight = [](const Contributor& one) { return one.weight_tokens > 0; };
  const auto owner = std::ranges::find_if(contributors, can_own);
  const bool is_needed = owner != contributors.end() &&
                         std::ranges::none_of(contributors, [&](const Contributor& one) {
                           return can_own(one) && has_weight(one);
                         });
  probe<"only somebody without weight can sum">(is_needed);
  if (is_needed) owner->weight_tokens = 1;
}

}  // namespace

RoundKeeper::RoundKeeper(const CoordinatorOptions& options, Roster& roster,
                         std::vector<FragmentState>& in_force, const Speaker& speaker,
                         Conduct& conduct, const Electors& electors)
    : options_(options),
      roster_(roster),
      in_force_(in_force),
      speaker_(speaker),
      conduct_(conduct),
      inquiries_(options.fragment_count, roster, speaker, conduct),
      electors_(electors),
      planner_(options) {
  slots_.resize(size_t(options.fragment_count));
}

// A Ready that crossed a Commit on its way names a round that is over. Its step is believed only as
// far as the run can have come since the last commit: a fragment's round is due every inner_steps,
// and a node that was alone for a while may be one further.
base::Result<void> RoundKeeper::on_ready(MemberRecord& member, const Authority& authority,
                                         const Ready& ready) {
  const size_t fragment = authority.fragment;
  probe<"a Ready for a round that is over">(authority.round <= in_force_[fragment].version);
  if (!member.is_active() || authority.round != in_force_[fragment].version + 1) return {};
  const uint64_t step_max = committed_step_ + 2 * options_.inner_steps;
  probe<"a Ready with a step that cannot be">(options_.inner_steps > 0 && ready.step > step_max);
  if (options_.inner_steps > 0 && ready.step > step_max) {
    return base::Failure{fmt::format("it says that it is at step {}, but the run is at {}",
                                     ready.step, committed_step_)};
  }
  member.step = std::max(member.step, ready.step);
  member.ready[fragment] = ready;
  if (ready.weight_tokens >= 0) return {};
  member.ready[fragment].reset();
  auto& round = slots_[fragment].round;
  probe<"a contribution is withdrawn from an open round">(round &&
                                                          round->is_contributor(member.peer));
  if (round && round->is_contributor(member.peer)) round->remove(member.peer);
  return {};
}

void RoundKeeper::on_done(const MemberRecord& member, const Authority& authority, const Done& done,
                          Instant now) {
  auto& round = slots_[authority.fragment].round;
  if (!round || !round->is_receiver(member.peer)) return;
  const Authority& its = round->authority();
  const bool is_this = authority.round == its.round && authority.attempt == its.attempt &&
                       authority.term == its.term;
  probe<"a Done crosses a Reown">(authority.round == its.round && authority.attempt < its.attempt);
  if (is_this) round->set_done(member.peer, done.results, now);
}

void RoundKeeper::on_measured(const MemberRecord& member, const Measured& measured) {
  for (const MeasuredWay& way : measured.ways) {
    const MemberRecord* const other = roster_.find(way.peer);
    if (!other || other == &member) continue;
    planner_.on_measured(
        other->node_key, member.node_key,
        {.round_trip = way.round_trip_us / 1e6, .bytes_per_second = double(way.bytes_per_second)});
  }
}

// A contributor that was excluded and has come back stays out: the chunks' owners have forgotten
// it.
void RoundKeeper::add_receiver(const MemberRecord& member, Turn turn) {
  for (Slot& slot : slots_) {
    probe<"a contributor that fell out comes back into its round">(
        slot.round && slot.round->is_contributor(member.peer));
    if (!slot.round || slot.round->is_contributor(member.peer)) continue;
    probe<"a member comes when a round is open">();
    slot.round->add_receiver(member.peer, !member.contributes);
    tell_open(*slot.round, member, turn);
  }
}

void RoundKeeper::remove(PeerId peer) {
  for (Slot& slot : slots_) {
    if (slot.round) slot.round->remove(peer);
  }
}

void RoundKeeper::hold_commits(Duration moment, Instant now) {
  if (now < hold_next_at_) return;
  probe<"commits are held for somebody who is nearly in step">();
  moment = std::min(moment, options_.round_timeout / 4);
  held_until_ = now + moment;
  hold_next_at_ = now + kHeldShare * moment;
}

void RoundKeeper::review(Turn turn) {
  for (int64_t fragment = 0; fragment < options_.fragment_count; ++fragment) {
    review_round(fragment, turn);
    review_ready(fragment, turn);
  }
}

std::set<PeerId> RoundKeeper::numbers() const {
  std::set<PeerId> all;
  for (const Slot& slot : slots_) {
    if (slot.round) all.merge(slot.round->numbers());
  }
  return all;
}

void RoundKeeper::review_ready(int64_t fragment, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  if (slot.round || !electors_.is_quorum_active()) return;
  std::vector<PeerId> ready = current_members(fragment);
  std::erase_if(ready, [&](PeerId peer) {
    const MemberRecord& member = *roster_.find(peer);
    return !member.contributes || !member.ready[size_t(fragment)];
  });
  if (int64_t(ready.size()) < std::max<int64_t>(1, options_.members_min)) {
    slot.ready_since.reset();
    return;
  }
  if (!slot.ready_since) slot.ready_since = turn.now;
  const std::vector<PeerId> awaited = awaited_members(fragment, ready);
  if (!awaited.empty() && !turn.is_due(*slot.ready_since + options_.ready_grace)) return;
  probe<"a round opens without one that is not ready">(!awaited.empty());
  std::vector<Contributor> all = contributors(fragment, ready);
  probe<"those who are ready cannot be dialled">(!can_be_made(fragment, all));
  if (!can_be_made(fragment, all)) return;
  for (const PeerId peer : awaited) conduct_.was_ready(roster_.find(peer)->node_key, false);
  for (const PeerId peer : ready) conduct_.was_ready(roster_.find(peer)->node_key, true);
  open(fragment, ready, std::move(all), turn);
}

// Somebody must be able to give the results to all others.
bool RoundKeeper::can_be_made(int64_t fragment, const std::vector<Contributor>& all) const {
  if (all.size() > 1) return possible_owners(all) != 0;
  if (!all.front().data.host.empty()) return true;
  return std::ranges::all_of(current_members(fragment), [&](PeerId peer) {
    const MemberRecord& member = *roster_.find(peer);
    return peer == all.front().peer || member.is_reachable || !member.contributes;
  });
}

// Will it be ready for the next round? Who came in the middle of the steps for it brings what it
// has to the one after.
bool RoundKeeper::is_awaited(const MemberRecord& member) const {
  const bool is_early = member.came_in_between && member.entered_after == committed_count_;
  return member.contributes && !is_early && conduct_.is_awaited(member.node_key);
}

std::vector<PeerId> RoundKeeper::awaited_members(int64_t fragment,
                                                 const std::vector<PeerId>& ready) const {
  std::vector<PeerId> awaited = roster_.active_peers();
  std::erase_if(awaited, [&](PeerId peer) {
    const MemberRecord& member = *roster_.find(peer);
    return std::ranges::binary_search(ready, peer) || member.ready[size_t(fragment)] ||
           !is_awaited(member);
  });
  return awaited;
}

std::vector<PeerId> RoundKeeper::current_members(int64_t fragment) const {
  std::vector<PeerId> peers = roster_.active_peers();
  std::erase_if(peers, [&](PeerId peer) {
    return !is_current(roster_.find(peer)->states[size_t(fragment)], in_force_[size_t(fragment)]);
  });
  return peers;
}

// A weight is believed as far as a node can have trained since its work was last in a commit, with
// many times the batch of this coordinator's own config, and not far above what the others bring.
int64_t RoundKeeper::believable_weight(const MemberRecord& member, const Ready& ready) const {
  if (options_.tokens_per_step == 0) return ready.weight_tokens;
  const uint64_t steps = ready.step - std::min(ready.step, member.contributed_step);
  const uint64_t most =
      kBatchesMax * uint64_t(options_.tokens_per_step) * std::max<uint64_t>(steps, 1);
  probe<"a weight that no node can have">(uint64_t(ready.weight_tokens) > most);
  return int64_t(std::min<uint64_t>(uint64_t(ready.weight_tokens), most));
}

std::vector<Contributor> RoundKeeper::contributors(int64_t fragment,
                                                   const std::vector<PeerId>& ready) const {
  std::vector<Contributor> contributors;
  std::vector<int64_t> weights;
  for (const PeerId peer : ready) {
    const MemberRecord& member = *roster_.find(peer);
    const int64_t weight = believable_weight(member, *member.ready[size_t(fragment)]);
    contributors.push_back({.peer = peer,
                            .weight_tokens = weight,
                            .data = member.is_reachable ? member.data : Endpoint{},
                            .node_key = member.node_key,
                            .contribution = member.ready[size_t(fragment)]->contribution});
    if (weight > 0) weights.push_back(weight);
  }
  if (!weights.empty()) {
    give_owner_weight(contributors);
    std::erase_if(contributors, [](const auto& one) { return one.weight_tokens <= 0; });
  }
  probe<"a round without any weight">(weights.empty());
  probe<"a contributor without weight is left out">(!weights.empty() &&
                                                    contributors.size() < ready.size());
  if (weights.size() < 3) return contributors;
  const auto middle = weights.begin() + int64_t(weights.size() / 2);
  std::ranges::nth_element(weights, middle);
  const int64_t most = *middle > INT64_MAX / kWeightsMax ? INT64_MAX : *middle * kWeightsMax;
  for (Contributor& one : contributors) {
    if (one.weight_tokens <= most) continue;
    probe<"a weight is far above what the others have">();
    base::log_warning(
        "{} says that it trained on {} tokens, over {} times what most did: it counts with {}",
        roster_.find(one.peer)->name, one.weight_tokens, kWeightsMax, most);
    one.weight_tokens = most;
  }
  return contributors;
}

void RoundKeeper::open(int64_t fragment, const std::vector<PeerId>& ready,
                       std::vector<Contributor> contributors, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  Open open{.contributors = std::move(contributors)};
  planner_.choose(open, size_t(fragment));
  for (const PeerId peer : ready) {
    open.step = std::max(open.step, roster_.find(peer)->ready[size_t(fragment)]->step);
  }
  std::vector<PeerId> receivers = current_members(fragment);
  const auto is_guest = [&](PeerId peer) { return !roster_.find(peer)->contributes; };
  std::vector<PeerId> guests = receivers;
  std::erase_if(guests, std::not_fn(is_guest));
  std::erase_if(receivers, is_guest);
  slot.round.emplace(Round::Setup{.authority = {.term = speaker_.term(),
                                                .round = in_force_[size_t(fragment)].version + 1,
                                                .attempt = ++slot.attempt,
                                                .fragment = uint32_t(fragment)},
                                  .open = std::move(open),
                                  .receivers = std::move(receivers),
                                  .guests = std::move(guests),
                                  .members_min = options_.members_min,
                                  .guest_lead = 2 * options_.heartbeat_interval,
                                  .opened_at = turn.now});
  for (const PeerId peer : slot.round->receivers()) {
    tell_open(*slot.round, *roster_.find(peer), turn);
  }
}

void RoundKeeper::tell_open(const Round& round, const MemberRecord& member, Turn turn) const {
  speaker_.send(member.link, MessageType::kOpen, round.open_authority(), encode(round.open()),
                turn);
  for (const auto& [authority, reown] : round.reowns()) {
    speaker_.send(member.link, MessageType::kReown, authority, encode(reown), turn);
  }
}

void RoundKeeper::review_round(int64_t fragment, Turn turn) {
  const auto& round = slots_[size_t(fragment)].round;
  if (!round) return;
  if (!become_direct_if_stuck(fragment, turn)) exclude_blamed(fragment, false, turn);
  bool is_overdue = turn.is_due(round->deadline_from() + options_.round_timeout);
  probe<"a round is overdue">(is_overdue);
  // Enough may hold the results. If not, whoever is most to blame goes, and the others get as long.
  if (is_overdue && round->verdict(true, turn) == Round::Verdict::kAbort) {
    exclude_blamed(fragment, true, turn);
    is_overdue = turn.is_due(round->deadline_from() + options_.round_timeout);
  }
  switch (round->verdict(is_overdue, turn)) {
    case Round::Verdict::kGoOn:
      return;
    case Round::Verdict::kReown:
      return reown(fragment, turn);
    case Round::Verdict::kCommit:
      if (!is_overdue && !turn.is_due(held_until_)) return;
      return commit_if_quorum(fragment, is_overdue, turn);
    case Round::Verdict::kAbort:
      return abort(fragment, "too few members are left in it", turn);
  }
}

// Whether it has trees: then nobody can be blamed yet. Overdue, it is given the time of a round.
bool RoundKeeper::become_direct_if_stuck(int64_t fragment, Turn turn) {
  Round& round = *slots_[size_t(fragment)].round;
  if (!round.has_trees()) return false;
  const bool is_overdue = turn.is_due(round.deadline_from() + options_.round_timeout) &&
                          round.verdict(true, turn) == Round::Verdict::kAbort;
  if (!is_overdue && !round.is_stuck(roster_, options_.stall_after / 2, turn)) return true;
  probe<"a round with trees is stuck">(!is_overdue);
  probe<"a round with trees is overdue">(is_overdue);
  base::log_warning("round {} of fragment {} does not get on by its plan, {}: it goes on directly",
                    round.authority().round, fragment, name_of(round.open().plan));
  round.become_direct();
  planner_.on_stuck();
  if (is_overdue) round.extend(turn.now);
  return true;
}

void RoundKeeper::exclude_blamed(int64_t fragment, bool is_overdue, Turn turn) {
  Round& round = *slots_[size_t(fragment)].round;
  const auto patience = is_overdue ? std::nullopt : std::optional(options_.stall_after);
  const auto blame = round.blame(roster_, conduct_, turn, patience);
  if (!blame) return;
  exclude(fragment, *blame, turn);
  if (is_overdue) round.extend(turn.now);
}

// It stays a member. It hears that it is out from the Reown, and will have to catch up.
void RoundKeeper::exclude(int64_t fragment, const Blame& blame, Turn turn) {
  Round& round = *slots_[size_t(fragment)].round;
  const MemberRecord& member = *roster_.find(blame.peer);
  base::log_warning("round {} of fragment {} goes on without {}: it {}", round.authority().round,
                    fragment, member.name, blame.why);
  tell(options_.on_incident, {.kind = Incident::Kind::kExcluded,
                              .who = member.name,
                              .reason = fmt::format("in round {} of fragment {} it {}",
                                                    round.authority().round, fragment, blame.why)});
  conduct_.offended(member.node_key, fmt::format("in round {} of fragment {} it {}",
                                                 round.authority().round, fragment, blame.why));
  const bool is_contributor = round.is_contributor(blame.peer);
  probe<"one that only receives is left out">(!is_contributor);
  round.remove(blame.peer);
  const Reown out{.excluded = {blame.peer}, .moves = {}};
  Authority authority = round.authority();
  ++authority.attempt;
  if (is_contributor) {
    speaker_.send(member.link, MessageType::kReown, authority, encode(out), turn);
  } else {
    speaker_.send(member.link, MessageType::kAbort, authority, no_payload(), turn);
  }
}

void RoundKeeper::reown(int64_t fragment, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  const Bytes payload = encode(slot.round->reown(turn.now));
  slot.attempt = slot.round->authority().attempt;
  probe<"a round is re-owned for the second time">(slot.round->reowns().size() == 2);
  for (const PeerId peer : slot.round->receivers()) {
    const LinkId link = roster_.find(peer)->link;
    speaker_.send(link, MessageType::kReown, slot.round->authority(), payload, turn);
  }
}

// Where those who hold the results are too few to bind the run, more of the round's members may
// come. If the others are here but not in it, it is made anew with them.
void RoundKeeper::commit_if_quorum(int64_t fragment, bool is_overdue, Turn turn) {
  const Round& round = *slots_[size_t(fragment)].round;
  if (electors_.is_quorum(round.agreement().peers)) return commit(fragment, turn);
  probe<"a round is complete and those who hold it are no quorum">();
  const bool can_more_come =
      electors_.is_quorum(round.receivers()) || !electors_.is_quorum_active();
  if (is_overdue || !can_more_come) abort(fragment, "those who hold it are no quorum", turn);
}

// What the others were told stands, so this cannot be taken back: it is done for all before
// anything else is looked at. Members that do not get the Commit have an older version from now on.
void RoundKeeper::commit(int64_t fragment, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  const Round& round = *slot.round;
  const Round::Agreement agreement = round.agreement();
  inquiries_.on_commit(round);
  const FragmentState state{.version = round.authority().round, .digest = {}};
  in_force_[size_t(fragment)] = state;
  const Commit commit{.results = agreement.results, .step = round.step()};
  const Bytes payload = encode(commit);
  probe<"a round commits without one that is late">(!round.late().empty());
  for (const PeerId peer : round.late()) {
    conduct_.offended(
        roster_.find(peer)->node_key,
        fmt::format("it was late for round {} of fragment {}", state.version, fragment));
  }
  probe<"a round commits against one with other results">(
      agreement.peers.size() + round.late().size() < round.receivers().size());
  for (const PeerId peer : agreement.peers) {
    MemberRecord& member = *roster_.find(peer);
    member.states[size_t(fragment)] = state;
    conduct_.kept(member.node_key);
    if (round.is_contributor(peer)) {
      member.contributed_step = round.step();
      member.contributed_round[fragment] = state.version;
    }
    speaker_.send(member.link, MessageType::kCommit, round.authority(), payload, turn);
  }
  if (round.open().estimated_ms > 0) {
    base::log_info("round {} of fragment {} took {:.3f} s, {}{}; {:.3f} s were estimated",
                   state.version, fragment, to_seconds(turn.now - round.opened_at()),
                   name_of(round.open().plan), round.reowns().empty() ? "" : " at first",
                   round.open().estimated_ms / 1e3);
  }
  for (auto& [peer, member] : roster_.all()) member.ready[size_t(fragment)].reset();
  committed_step_ = std::max(committed_step_, round.step());
  slot = {.committed_at = turn.now, .committed = commit};
  ++committed_count_;
}

// Was it not committed, it does no harm to commit it now.
void RoundKeeper::inherit_held(const std::vector<Electorate>& electorates) {
  for (int64_t fragment = 0; fragment < options_.fragment_count; ++fragment) {
    FragmentState& state = in_force_[size_t(fragment)];
    const auto newest = last_committable(roster_, electorates, uint32_t(fragment), state.version);
    if (!newest) continue;
    Slot& slot = slots_[size_t(fragment)];
    slot.committed = Commit{.results = newest->results, .step = newest->step};
    if (newest->round == state.version) continue;
    probe<"a round of the last coordinator is committed">();
    base::log_info("round {} of fragment {}, which was open, is committed", newest->round,
                   fragment);
    state = {.version = newest->round, .digest = {}};
    committed_step_ = std::max(committed_step_, newest->step);
  }
}

void RoundKeeper::commit_held(Turn turn) {
  if (!options_.fail_over) return;
  for (auto& [peer, member] : roster_.all()) {
    for (const HeldRound& held : std::exchange(member.held, {})) {
      if (held.fragment >= slots_.size()) continue;
      const Slot& slot = slots_[held.fragment];
      FragmentState& theirs = member.states[held.fragment];
      const bool is_it = slot.committed && slot.committed->results == held.results &&
                         held.round == in_force_[held.fragment].version;
      if (!is_it || theirs.version + 1 != held.round) continue;
      probe<"a member that holds the last commit is told so">();
      theirs = {.version = held.round, .digest = {}};
      speaker_.send(member.link, MessageType::kCommit,
                    {.term = held.term,
                     .round = held.round,
                     .attempt = held.attempt,
                     .fragment = held.fragment},
                    encode(*slot.committed), turn);
    }
  }
}

void RoundKeeper::abort(int64_t fragment, const std::string& reason, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  if (!slot.round) return;
  probe<"a round is given up">();
  const Authority authority = slot.round->authority();
  base::log_warning("gave up round {} of fragment {}: {}", authority.round, fragment, reason);
  for (const PeerId peer : slot.round->receivers()) {
    speaker_.send(roster_.find(peer)->link, MessageType::kAbort, authority, no_payload(), turn);
  }
  slot.round.reset();
  slot.ready_since.reset();
}

}  // namespace net
