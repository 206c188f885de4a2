#include "net/exchange/audit.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/log.h"
#include "net/wire/wire.h"

namespace net {

std::vector<int64_t> Audit::sample(uint64_t secret, int64_t count) const {
  std::vector<int64_t> others;
  for (int64_t chunk = 0; chunk < int64_t(record_.chunks.size()); ++chunk) {
    if (record_.chunks[size_t(chunk)].owner != record_.self && can_be_remade(chunk))
      others.push_back(chunk);
  }
  std::vector<int64_t> sampled;
  for (uint64_t draw = 0; int64_t(sampled.size()) < count && !others.empty(); ++draw) {
    WireWriter seed;
    seed.number(secret);
    seed.number(record_.authority.term);
    seed.number(record_.authority.fragment);
    seed.number(record_.authority.round);
    seed.number(draw);
    const base::Digest digest = base::sha256(seed.finish());
    uint64_t number;
    std::memcpy(&number, digest.bytes.data(), sizeof number);
    const auto drawn = others.begin() + int64_t(number % others.size());
    sampled.push_back(*drawn);
    others.erase(drawn);
  }
  return sampled;
}

void Audit::begin(int64_t chunk, bool is_asked, Instant now) {
  if (chunk >= int64_t(record_.chunks.size())) return;
  if (record_.chunks[size_t(chunk)].owner == record_.self || !can_be_remade(chunk)) return;
  const auto [found, is_new] = works_.try_emplace(chunk);
  Work& work = found->second;
  if (is_new) work.began_at = now;
  const bool is_news = is_asked && !work.is_asked;
  work.is_asked |= is_asked;
  if (work.remade && is_news) tell(chunk);
}

void Audit::on_tick(Turn turn) {
  for (auto& [chunk, work] : works_) {
    if (work.is_begun || work.remade || !turn.is_due(work.began_at + patience_)) continue;
    work.remade = Remade{};
    for (const int64_t index : contributors_in(chunk)) {
      const bool is_own = record_.contributors[size_t(index)].peer == record_.self;
      if (!is_own && !work.parts.contains(index)) work.remade->wrong |= ContributorMask{1} << index;
    }
    tell(chunk);
  }
}

// Those whose parts the owner says it had.
std::vector<int64_t> Audit::contributors_in(int64_t chunk) const {
  const ResultHeader& header = record_.chunks[size_t(chunk)].header;
  std::vector<int64_t> indexes;
  for (int64_t index = 0; index < int64_t(record_.contributors.size()); ++index) {
    if (((header.contributors | header.judged_out) >> index & 1) != 0) indexes.push_back(index);
  }
  return indexes;
}

// A subtotal is bound to nobody's root. Of two that cannot be dialled neither reaches the other.
bool Audit::can_be_remade(int64_t chunk) const {
  if (!record_.chunks[size_t(chunk)].is_direct) return false;
  const auto cannot_be_dialled = [](const Contributor& one) { return one.data.host.empty(); };
  const auto us = std::ranges::find(record_.contributors, record_.self, &Contributor::peer);
  if (us == record_.contributors.end() || !cannot_be_dialled(*us)) return true;
  return std::ranges::none_of(contributors_in(chunk), [&](int64_t index) {
    const Contributor& other = record_.contributors[size_t(index)];
    return other.peer != record_.self && cannot_be_dialled(other);
  });
}

ChunkName Audit::name_of(int64_t chunk, WantKind kind) const {
  ChunkName name = chunk_name(kind, record_.authority);
  name.attempt = record_.chunks[size_t(chunk)].attempt;
  name.chunk = uint32_t(chunk);
  return name;
}

std::vector<Audit::Missing> Audit::missing() const {
  std::vector<Missing> missing;
  for (const auto& [chunk, work] : works_) {
    if (work.is_begun || work.remade) continue;
    for (const int64_t index : contributors_in(chunk)) {
      const Contributor& contributor = record_.contributors[size_t(index)];
      if (contributor.peer == record_.self || work.parts.contains(index)) continue;
      ChunkName name = name_of(chunk, WantKind::kProof);
      name.contributor = contributor.peer;
      missing.push_back(
          {name,
           {.peer = contributor.peer, .data = contributor.data, .node_key = contributor.node_key}});
    }
  }
  return missing;
}

// Whether it is what was announced is seen when all are there.
void Audit::deliver(const ChunkName& name, const Bytes& payload) {
  const auto found = works_.find(int64_t(name.chunk));
  if (found == works_.end()) return;
  const auto& all = record_.contributors;
  const auto contributor = std::ranges::find(all, name.contributor, &Contributor::peer);
  if (contributor != all.end()) found->second.parts[contributor - all.begin()] = payload;
}

// The same bytes as in the round, under another kind: a copy, which is rare.
Answer Audit::answer(const ChunkName& name) const {
  if (name.chunk >= record_.ours.size() || !record_.ours[name.chunk]) return gone();
  auto payload = std::make_shared<std::vector<std::byte>>(*record_.ours[name.chunk]);
  payload->front() = std::byte(WantKind::kProof);
  return {.kind = Answer::Kind::kChunk, .payload = std::move(payload)};
}

std::optional<Audit::Task> Audit::next_task() {
  for (auto& [chunk, work] : works_) {
    if (work.is_begun || work.remade) continue;
    std::vector<Summand> summands;
    bool is_whole = true;
    for (const int64_t index : contributors_in(chunk)) {
      const Contributor& contributor = record_.contributors[size_t(index)];
      const bool is_own = contributor.peer == record_.self;
      const auto part = work.parts.find(index);
      const Bytes bytes = is_own                     ? record_.ours[size_t(chunk)]
                          : part != work.parts.end() ? part->second
                                                     : nullptr;
      is_whole = is_whole && bytes;
      summands.push_back({.index = index,
                          .part = {.peer = contributor.peer,
                                   .weight_tokens = contributor.weight_tokens,
                                   .bytes = bytes,
                                   .offset = kContributionOffset},
                          .header = header_of(index, contributor),
                          .root = contributor.contribution});
    }
    if (!is_whole) continue;
    work.is_begun = true;
    work.parts.clear();
    return Task{.chunk = chunk,
                .work = [&store = store_, name = name_of(chunk, WantKind::kResult),
                         summands = std::move(summands)] { return remake(store, name, summands); }};
  }
  return std::nullopt;
}

void Audit::finish(int64_t chunk, const Remade& remade) {
  Work& work = works_.at(chunk);
  work.remade = remade;
  const base::Digest& published = record_.chunks[size_t(chunk)].published;
  const bool is_wrong = !remade.digest.is_zero() && remade.digest != published;
  if (work.is_asked || is_wrong || remade.wrong != 0) tell(chunk);
}

void Audit::tell(int64_t chunk) {
  const ChunkName name = name_of(chunk, WantKind::kResult);
  const Chunk& about = record_.chunks[size_t(chunk)];
  const Remade& remade = *works_.at(chunk).remade;
  const auto warn = [&](const std::string& what) {
    base::log_warning("chunk {} of round {} of fragment {}, which member {} summed: {}", chunk,
                      name.round, name.fragment, about.owner, what);
  };
  if (!remade.digest.is_zero() && remade.digest != about.published)
    warn("what it published is not what the parts make");
  if (remade.wrong != 0)
    warn(fmt::format("contributors {:x} do not show what they announced", remade.wrong));
  findings_.push_back(
      {.authority = authority_of(name, 0),
       .audited = {
           .published = about.published, .remade = remade.digest, .withheld = remade.wrong}});
}

}  // namespace net
