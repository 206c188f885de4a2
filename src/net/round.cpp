#include "net/round.h"

#include <algorithm>
#include <bit>

namespace net {

Round::Round(Setup setup)
    : open_authority_(setup.authority),
      authority_(setup.authority),
      open_(std::move(setup.open)),
      opened_at_(setup.opened_at),
      changed_at_(setup.opened_at) {
  const auto contributor_count = int64_t(open_.contributors.size());
  plan_ = make_direct_plan(setup.chunk_count, contributor_count, authority_.attempt);
  open_.owners = plan_.owners;
  // Members whose weight is 0 were counted when the round was opened, but may not be in it.
  members_min_ = std::clamp<int64_t>(setup.members_min, 1, contributor_count);
  for (const PeerId peer : setup.receivers) add_receiver(peer);
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

void Round::set_done(PeerId peer, const base::Digest& results) {
  receivers_.at(peer) = results;
}

void Round::remove(PeerId peer) {
  receivers_.erase(peer);
  const auto index = index_of(peer);
  if (!index || (excluded_ >> *index & 1) != 0) return;
  excluded_ |= ContributorMask{1} << *index;
  is_reown_due_ = true;
}

Round::Verdict Round::verdict(bool is_overdue) const {
  const bool is_all_done = std::ranges::all_of(
      receivers_, [](const auto& receiver) { return receiver.second.has_value(); });
  if (is_all_done || is_overdue)
    return are_enough(agreement()) ? Verdict::kCommit : Verdict::kAbort;
  if (contributors_left() < members_min_) return Verdict::kAbort;
  return is_reown_due_ ? Verdict::kReown : Verdict::kGoOn;
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
  reown.moves = move_chunks(plan_, contributor_count, excluded_);
  apply_moves(plan_, reown.moves, authority_.attempt);
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
  for (const auto& [results, peers] : groups) {
    const bool is_larger = peers.size() > best.peers.size();
    const bool is_tie = peers.size() == best.peers.size() && peers.front() < best.peers.front();
    if (is_larger || is_tie) best = {.results = results, .peers = peers};
  }
  return best;
}

bool Round::are_enough(const Agreement& agreement) const {
  const auto contributor_count =
      std::ranges::count_if(agreement.peers, [&](PeerId peer) { return is_contributor(peer); });
  return contributor_count >= members_min_;
}

std::optional<PeerId> Round::stalling(const Roster& roster, Instant now,
                                      Duration stall_after) const {
  if (now - changed_at_ < stall_after) return std::nullopt;
  std::optional<PeerId> most_wanted;
  int64_t most_waiters = 0;
  for (const auto& [peer, done] : receivers_) {
    int64_t waiters = 0;
    for (const auto& [other, other_done] : receivers_) {
      const MemberRecord& record = roster.all().at(other);
      const auto since = record.waiting_since[peer];
      const bool waits = other != peer && since &&
                         record.heartbeat_at - std::max(*since, changed_at_) >= stall_after;
      waiters += waits;
    }
    // Of two that are equally wanted, the one that came later goes.
    if (2 * waiters > int64_t(receivers_.size()) - 1 && waiters >= most_waiters) {
      most_wanted = peer;
      most_waiters = waiters;
    }
  }
  if (most_wanted) return most_wanted;
  for (const auto& [peer, done] : receivers_) {
    const Instant moved_at = std::max(roster.all().at(peer).progress_at, changed_at_);
    if (!done && now - moved_at >= stall_after) return peer;
  }
  return std::nullopt;
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
