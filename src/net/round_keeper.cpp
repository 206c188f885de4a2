#include "net/round_keeper.h"

#include <algorithm>
#include <functional>

#include "base/log.h"
#include "net/lineage.h"

namespace net {

RoundKeeper::RoundKeeper(const CoordinatorOptions& options, Roster& roster,
                         std::vector<FragmentState>& in_force, const Speaker& speaker)
    : options_(options), roster_(roster), in_force_(in_force), speaker_(speaker) {
  slots_.resize(size_t(options.fragment_count));
}

// A Ready that crossed a Commit on its way names a round that is over.
void RoundKeeper::on_ready(MemberRecord& member, const Authority& authority, const Ready& ready) {
  const size_t fragment = authority.fragment;
  member.step = std::max(member.step, ready.step);
  if (!member.is_active() || authority.round != in_force_[fragment].version + 1) return;
  member.ready[fragment] = ready;
  if (ready.weight_tokens >= 0) return;
  member.ready[fragment].reset();
  auto& round = slots_[fragment].round;
  if (round && round->is_contributor(member.peer)) round->remove(member.peer);
}

void RoundKeeper::on_done(const MemberRecord& member, const Authority& authority,
                          const Done& done) {
  auto& round = slots_[authority.fragment].round;
  if (!round || !round->is_receiver(member.peer)) return;
  const Authority& now = round->authority();
  const bool is_this = authority.round == now.round && authority.attempt == now.attempt &&
                       authority.term == now.term;
  if (is_this) round->set_done(member.peer, done.results);
}

// A contributor that was excluded and has come back stays out: the chunks' owners have forgotten
// it.
void RoundKeeper::add_receiver(const MemberRecord& member, Turn turn) {
  for (Slot& slot : slots_) {
    if (!slot.round || slot.round->is_contributor(member.peer)) continue;
    slot.round->add_receiver(member.peer);
    tell_open(*slot.round, member, turn);
  }
}

void RoundKeeper::remove(PeerId peer) {
  for (Slot& slot : slots_) {
    if (slot.round) slot.round->remove(peer);
  }
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
  if (slot.round) return;
  std::vector<PeerId> ready = current_members(fragment);
  std::erase_if(ready, [&](PeerId peer) { return !roster_.find(peer)->ready[size_t(fragment)]; });
  if (int64_t(ready.size()) < std::max<int64_t>(1, options_.members_min)) {
    slot.ready_since.reset();
    return;
  }
  if (!slot.ready_since) slot.ready_since = turn.now;
  const bool is_grace_over = turn.now - *slot.ready_since >= options_.ready_grace;
  if (is_grace_over || !is_somebody_due(fragment, ready)) open(fragment, ready, turn);
}

// Will another member be ready for the round for which these are? Who entered the run at its step
// has nothing to bring to it, and would only be ready for the next one.
bool RoundKeeper::is_somebody_due(int64_t fragment, const std::vector<PeerId>& ready) const {
  uint64_t step = 0;
  for (const PeerId peer : ready) {
    step = std::max(step, roster_.find(peer)->ready[size_t(fragment)]->step);
  }
  return std::ranges::any_of(roster_.active_peers(), [&](PeerId peer) {
    return !std::ranges::binary_search(ready, peer) && roster_.find(peer)->entered_at < step;
  });
}

std::vector<PeerId> RoundKeeper::current_members(int64_t fragment) const {
  std::vector<PeerId> peers = roster_.active_peers();
  std::erase_if(peers, [&](PeerId peer) {
    return !is_current(roster_.find(peer)->states[size_t(fragment)], in_force_[size_t(fragment)]);
  });
  return peers;
}

void RoundKeeper::open(int64_t fragment, const std::vector<PeerId>& ready, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  Open open;
  for (const PeerId peer : ready) {
    const MemberRecord& member = *roster_.find(peer);
    const Ready& its = *member.ready[size_t(fragment)];
    open.contributors.push_back({peer, its.weight_tokens, member.data});
    open.step = std::max(open.step, its.step);
  }
  const auto has_weight = [](const Contributor& one) { return one.weight_tokens > 0; };
  if (std::ranges::any_of(open.contributors, has_weight)) {
    std::erase_if(open.contributors, std::not_fn(has_weight));
  }
  slot.round.emplace(Round::Setup{.authority = {.term = speaker_.term(),
                                                .round = in_force_[size_t(fragment)].version + 1,
                                                .attempt = ++slot.attempt,
                                                .fragment = uint32_t(fragment)},
                                  .open = std::move(open),
                                  .receivers = current_members(fragment),
                                  .chunk_count = options_.chunk_counts[size_t(fragment)],
                                  .members_min = options_.members_min,
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
  exclude_stalling(fragment, turn);
  const bool is_overdue = turn.now - round->opened_at() >= options_.round_timeout;
  switch (round->verdict(is_overdue)) {
    case Round::Verdict::kGoOn:
      return;
    case Round::Verdict::kReown:
      return reown(fragment, turn);
    case Round::Verdict::kCommit:
      return commit(fragment, turn);
    case Round::Verdict::kAbort:
      return abort(fragment, "too few members are left in it", turn);
  }
}

// It stays a member. It hears that it is out from the Reown, and will have to catch up.
void RoundKeeper::exclude_stalling(int64_t fragment, Turn turn) {
  Round& round = *slots_[size_t(fragment)].round;
  const auto peer = round.stalling(roster_, turn.now, options_.stall_after);
  if (!peer) return;
  const MemberRecord& member = *roster_.find(*peer);
  base::log_warning("round {} of fragment {} goes on without {}, for which the others waited",
                    round.authority().round, fragment, member.name);
  const bool is_contributor = round.is_contributor(*peer);
  round.remove(*peer);
  const Reown out{.excluded = {*peer}, .moves = {}};
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
  for (const PeerId peer : slot.round->receivers()) {
    const LinkId link = roster_.find(peer)->link;
    speaker_.send(link, MessageType::kReown, slot.round->authority(), payload, turn);
  }
}

// What the others were told stands, so this cannot be taken back: it is done for all before
// anything else is looked at. Members that do not get the Commit have an older version from now on.
void RoundKeeper::commit(int64_t fragment, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  const Round& round = *slot.round;
  const Round::Agreement agreement = round.agreement();
  const FragmentState state{.version = round.authority().round, .digest = {}};
  in_force_[size_t(fragment)] = state;
  const Bytes payload = encode(Commit{.results = agreement.results, .step = round.step()});
  for (const PeerId peer : agreement.peers) {
    MemberRecord& member = *roster_.find(peer);
    member.states[size_t(fragment)] = state;
    speaker_.send(member.link, MessageType::kCommit, round.authority(), payload, turn);
  }
  for (auto& [peer, member] : roster_.all()) member.ready[size_t(fragment)].reset();
  slot = {.committed_at = turn.now};
  ++committed_count_;
}

void RoundKeeper::abort(int64_t fragment, const std::string& reason, Turn turn) {
  Slot& slot = slots_[size_t(fragment)];
  if (!slot.round) return;
  const Authority authority = slot.round->authority();
  base::log_warning("gave up round {} of fragment {}: {}", authority.round, fragment, reason);
  for (const PeerId peer : slot.round->receivers()) {
    speaker_.send(roster_.find(peer)->link, MessageType::kAbort, authority, no_payload(), turn);
  }
  slot.round.reset();
  slot.ready_since.reset();
}

}  // namespace net
