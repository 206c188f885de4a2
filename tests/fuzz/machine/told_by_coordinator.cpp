#include "fuzz/machine/told_by_coordinator.h"

#include <algorithm>

#include "base/error.h"

namespace net {
namespace {

ToldByCoordinator::RoundKey key_of(const Authority& authority) {
  return {.term = authority.term, .fragment = authority.fragment, .round = authority.round};
}

}  // namespace

void ToldByCoordinator::hear(LinkId id, const Message& message) {
  Link& link = links_[id];
  CHECK(!link.is_rejected, "message {} to one that was rejected", int(message.type));
  const Authority& authority = message.authority;
  if (message.type == MessageType::kDialBack) return;
  // A round keeps the term in which it was opened.
  const bool is_of_round = authority.round != 0;
  CHECK(is_of_round || authority.term >= term_, "term {} after {}", authority.term, term_);
  CHECK(authority.epoch >= epoch_, "epoch {} after {}", authority.epoch, epoch_);
  term_ = std::max(term_, authority.term);
  epoch_ = authority.epoch;
  const std::span<const std::byte> bytes = *message.payload;
  switch (message.type) {
    case MessageType::kWelcome:
      link.peer = decode<Welcome>(bytes)->peer;
      return;
    case MessageType::kReject:
      link.is_rejected = true;
      return;
    case MessageType::kCatchUp:
      return hear_catch_up(link, *decode<CatchUp>(bytes));
    case MessageType::kStart:
      CHECK(link.peer != kNobody);
      link.is_active = true;
      return;
    case MessageType::kOpen:
      return hear_open(link, *decode<Open>(bytes), authority);
    case MessageType::kReown:
      return hear_reown(link, *decode<Reown>(bytes), authority);
    case MessageType::kCommit:
      return hear_commit(link, *decode<Commit>(bytes), authority);
    case MessageType::kAbort:
      link.open.erase(authority.fragment);
      return;
    case MessageType::kSamples:
      return hear_samples(*decode<Samples>(bytes), authority.term);
    default:
      return;
  }
}

void ToldByCoordinator::hear_catch_up(Link& link, const CatchUp& catch_up) {
  CHECK(link.peer != kNobody);
  link.catch_up = catch_up;
  link.is_active = false;
  link.open.clear();
  link.committed.clear();
}

void ToldByCoordinator::hear_open(Link& link, const Open& open, const Authority& authority) {
  CHECK(link.is_active, "round {} is opened for one that is not active", authority.round);
  CHECK(!open.contributors.empty());
  link.open[authority.fragment] = authority;
  Round& round = rounds_[key_of(authority)];
  CHECK(!round.committed, "round {} is opened after its commit", authority.round);
  round.contributors.clear();
  for (const Contributor& one : open.contributors) {
    const bool is_in_order = round.contributors.empty() || round.contributors.back() < one.peer;
    CHECK(is_in_order, "contributor {}", one.peer);
    round.contributors.push_back(one.peer);
  }
  for (const uint8_t owner : open.owners) CHECK(owner < open.contributors.size());
  link.excluded[authority.fragment].clear();
}

void ToldByCoordinator::hear_reown(Link& link, const Reown& reown, const Authority& authority) {
  CHECK(link.open.contains(authority.fragment), "a Reown of a round that is not open");
  const Round& round = rounds_.at(key_of(authority));
  const std::set<PeerId> excluded(reown.excluded.begin(), reown.excluded.end());
  if (excluded.contains(link.peer)) {  // It alone is told so.
    link.open.erase(authority.fragment);
    return;
  }
  std::set<PeerId>& before = link.excluded[authority.fragment];
  CHECK(std::ranges::includes(excluded, before), "somebody is in the round again");
  before = excluded;
  for (const Reown::Move& move : reown.moves) {
    CHECK(move.owner < round.contributors.size());
    CHECK(!excluded.contains(round.contributors[move.owner]), "chunk {} goes to one that is out",
          move.chunk);
  }
}

void ToldByCoordinator::hear_commit(Link& link, const Commit& commit, const Authority& authority) {
  const auto open = link.open.find(authority.fragment);
  CHECK(open != link.open.end() && key_of(open->second) == key_of(authority),
        "round {} is committed to one for whom it is not open", authority.round);
  Round& round = rounds_.at(key_of(authority));
  CHECK(!round.committed || *round.committed == commit.results,
        "round {} of fragment {} is committed with two digests", authority.round,
        authority.fragment);
  round.committed = commit.results;
  link.open.erase(open);
  link.committed[authority.fragment] = authority;
  link.versions[authority.fragment] = authority.round;
}

void ToldByCoordinator::hear_samples(const Samples& samples, uint32_t term) {
  uint64_t& end = samples_end_[term];
  CHECK(samples.count == 0 || samples.first >= end, "sample {} is given after {}", samples.first,
        end);
  end = std::max(end, samples.first + samples.count);
}

}  // namespace net
