#include "net/coordinator/round.h"

#include <algorithm>
#include <bit>

#include "net/probe.h"

namespace net {

Round::Round(Setup setup)
    : open_authority_(setup.authority),
      authority_(setup.authority),
      open_(std::move(setup.open)),
      opened_at_(setup.opened_at),
      guest_lead_(setup.guest_lead),
      changed_at_(setup.opened_at),
      judged_from_(setup.opened_at),
      deadline_from_(setup.opened_at) {
  const auto contributor_count = int64_t(open_.contributors.size());
  owners_ = possible_owners(open_.contributors);
  plan_ = make_plan(open_, authority_.attempt);
  // Members whose weight is 0 were counted when the round was opened, but may not be in it.
  members_min_ = std::clamp<int64_t>(setup.members_min, 1, contributor_count);
  for (const PeerId peer : setup.receivers) add_receiver(peer, false);
  for (const PeerId peer : setup.guests) add_receiver(peer, true);
}

void Round::add_receiver(PeerId peer, bool is_guest) {
  receivers_.emplace(peer, std::nullopt);
  if (is_guest) guests_.insert(peer);
}

std::vector<PeerId> Round::receivers() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, done] : receivers_) peers.push_back(peer);
  return peers;
}

std::set<PeerId> Round::numbers() const {
  std::set<PeerId> numbers;
  for (const auto& [peer, done] : receivers_) numbers.insert(peer);
  for (const Contributor& contributor : open_.contributors) numbers.insert(contributor.peer);
  return numbers;
}

void Round::set_done(PeerId peer, const base::Digest& results, Instant now) {
  receivers_.at(peer) = results;
  done_at_ = now;
}

void Round::remove(PeerId peer) {
  receivers_.erase(peer);
  guests_.erase(peer);
  const auto index = index_of(peer);
  if (!index || (excluded_ >> *index & 1) != 0) return;
  probe<"an owner falls out">(is_owner(peer));
  excluded_ |= ContributorMask{1} << *index;
  is_reown_due_ = true;
}

Round::Verdict Round::verdict(bool is_overdue, Turn turn) const {
  bool are_guests_done = true;
  for (const PeerId guest : guests_) are_guests_done &= receivers_.at(guest).has_value();
  // If those who are waited for have all results, nobody asks whose chunks they were.
  const bool is_all_done =
      late().empty() && (is_reown_due_ || are_guests_done || turn.is_due(done_at_ + guest_lead_));
  probe<"a round does not wait for its guests">(is_all_done && !are_guests_done);
  probe<"a member falls out when all others are done">(is_all_done && is_reown_due_);
  if (is_all_done || is_overdue) {
    return is_enough(contributors_among(agreement().peers)) ? Verdict::kCommit : Verdict::kAbort;
  }
  const bool are_owners_left = (owners_ & ~excluded_) != 0;
  probe<"half of a round's contributors are gone">(!is_enough(contributors_left()));
  probe<"only those who cannot be dialled are left in a round">(!are_owners_left);
  if (!is_enough(contributors_left()) || !are_owners_left) return Verdict::kAbort;
  return is_reown_due_ ? Verdict::kReown : Verdict::kGoOn;
}

std::vector<PeerId> Round::late() const {
  std::vector<PeerId> late;
  for (const auto& [peer, done] : receivers_) {
    if (!done && !guests_.contains(peer)) late.push_back(peer);
  }
  return late;
}

Reown Round::reown(Instant now) {
  ++authority_.attempt;
  changed_at_ = now;
  is_reown_due_ = false;
  Reown reown;
  const auto contributor_count = int64_t(open_.contributors.size());
  for (int64_t index = 0; index < contributor_count; ++index) {
    if ((excluded_ >> index & 1) != 0) {
      reown.excluded.push_back(open_.contributors[size_t(index)].peer);
    }
  }
  const bool had_trees = has_trees();
  if (is_direct_due_) {
    reown.moves = make_direct(plan_);
    apply_moves(plan_, reown.moves, authority_.attempt);
  }
  is_direct_due_ = false;
  for (const Reown::Move& move : move_chunks(plan_, owners_ & ~excluded_, excluded_))
    reown.moves.push_back(move);
  apply_moves(plan_, reown.moves, authority_.attempt);
  // Who was waited for in a tree may have waited for somebody below.
  if (had_trees && !has_trees()) judged_from_ = now;
  for (auto& [peer, done] : receivers_) done.reset();
  reowns_.emplace_back(authority_, reown);
  return reown;
}

Round::Agreement Round::agreement() const {
  std::map<base::Digest, std::vector<PeerId>> groups;
  for (const auto& [peer, done] : receivers_) {
    if (done) groups[*done].push_back(peer);
  }
  Agreement best;
  int64_t best_count = -1;
  for (const auto& [results, peers] : groups) {
    const int64_t count = contributors_among(peers);
    const bool is_tie = count == best_count && peers.front() < best.peers.front();
    if (count <= best_count && !is_tie) continue;
    best = {.results = results, .peers = peers};
    best_count = count;
  }
  return best;
}

bool Round::is_enough(int64_t contributor_count) const {
  return contributor_count >= members_min_ &&
         2 * contributor_count >= int64_t(open_.contributors.size());
}

int64_t Round::contributors_among(const std::vector<PeerId>& peers) const {
  return std::ranges::count_if(peers, [&](PeerId peer) { return is_contributor(peer); });
}

bool Round::is_owner(PeerId peer) const {
  const auto index = index_of(peer);
  return index &&
         std::ranges::find(plan_.trees, uint8_t(*index), &Tree::owner) != plan_.trees.end();
}

bool Round::has_trees() const {
  return !std::ranges::all_of(plan_.trees, &Tree::is_direct);
}

void Round::become_direct() {
  is_direct_due_ = is_reown_due_ = true;
}

bool Round::is_stuck(const Roster& roster, Duration patience, Turn turn) const {
  bool has_one_moved = false, has_one_waited = false;
  for (const PeerId peer : late()) {
    const Witness one = witness(roster.all().at(peer), turn, patience);
    has_one_moved |= one.has_moved;
    has_one_waited |= (one.waits_for_contribution | one.cannot_dial) != 0;
  }
  return !late().empty() && (!has_one_moved || has_one_waited);
}

std::optional<Blame> Round::blame(const Roster& roster, const Conduct& conduct, Turn turn,
                                  std::optional<Duration> patience) const {
  std::vector<Witness> witnesses;
  for (const auto& [peer, done] : receivers_) {
    if (guests_.contains(peer)) continue;
    const MemberRecord& member = roster.all().at(peer);
    witnesses.push_back(witness(member, turn, patience));
    witnesses.back().is_done = done.has_value();
    witnesses.back().offences = conduct.offences(member.node_key);
  }
  return find_blame(witnesses);
}

// Without a patience, what was said last counts, however new it is.
Witness Round::witness(const MemberRecord& member, Turn turn,
                       std::optional<Duration> patience) const {
  Witness witness{.peer = member.peer,
                  .is_contributor = is_contributor(member.peer),
                  .is_owner = is_owner(member.peer),
                  .came_as = member.entered_after};
  const Heartbeat& said = member.heartbeat;
  witness.lacks_any = (said.owes_contribution | said.owes_result) != 0;
  if (!patience) {
    witness.is_excused = said.owes_contribution != 0;
    witness.waits_for_contribution = said.owes_contribution;
    witness.waits_for_result = said.owes_result;
    witness.cannot_dial = said.unreachable;
    return witness;
  }
  witness.has_moved = !turn.is_due(std::max(member.progress_at, changed_at_) + *patience);
  witness.is_excused =
      !turn.is_due(std::max(member.lacked_contributions_at, judged_from_) + *patience);
  const auto old_enough = [&](const MemberRecord::Since& since, Duration age) {
    uint64_t mask = 0;
    for (size_t peer = 0; peer < since.size(); ++peer) {
      const bool is_old =
          since[peer] && member.heartbeat_at - std::max(*since[peer], judged_from_) >= age;
      mask |= uint64_t{is_old} << peer;
    }
    return mask;
  };
  witness.waits_for_contribution = old_enough(member.no_contribution_since, *patience);
  witness.waits_for_result = old_enough(member.no_result_since, *patience);
  witness.cannot_dial = old_enough(member.undialled_since, *patience / 3);
  return witness;
}

std::optional<int64_t> Round::index_of(PeerId peer) const {
  const auto found = std::ranges::find(open_.contributors, peer, &Contributor::peer);
  if (found == open_.contributors.end()) return std::nullopt;
  return found - open_.contributors.begin();
}

int64_t Round::contributors_left() const {
  return int64_t(open_.contributors.size()) - std::popcount(excluded_);
}

}  // namespace net
