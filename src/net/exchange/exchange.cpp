#include "net/exchange/exchange.h"

#include <algorithm>

#include "base/log.h"
#include "net/wire/frame.h"

namespace net {
namespace {

constexpr int64_t kWantFrameBytes = kFrameHeaderBytes + 1;

bool contains(ContributorMask mask, int64_t index) {
  return (mask >> index & 1) != 0;
}

}  // namespace

base::Result<std::unique_ptr<Exchange>> Exchange::create(Setup setup, FragmentStore& store) {
  const Open& open = setup.open;
  const int64_t chunk_count = store.chunk_count(setup.authority.fragment);
  if (open.contributors.empty()) return base::Failure{"a round without contributors"};
  if (int64_t(open.owners.size()) != chunk_count) {
    return base::Failure{fmt::format("a round with {} chunks, but fragment {} has {}",
                                     open.owners.size(), setup.authority.fragment, chunk_count)};
  }
  return std::unique_ptr<Exchange>(new Exchange(std::move(setup), store));
}

Exchange::Exchange(Setup setup, FragmentStore& store)
    : setup_(std::move(setup)), store_(store), attempt_(setup_.authority.attempt) {
  self_index_ = index_of(setup_.self);
  plan_.owners = setup_.open.owners;
  plan_.attempts.assign(plan_.owners.size(), attempt_);
  chunks_.resize(plan_.owners.size());
  find_reducible();
}

Authority Exchange::authority() const {
  Authority authority = setup_.authority;
  authority.attempt = attempt_;
  return authority;
}

base::Result<void> Exchange::reown(const Reown& reown, uint32_t attempt) {
  if (attempt <= attempt_) return {};
  for (const Reown::Move& move : reown.moves) {
    if (move.chunk >= chunks_.size() || move.owner >= contributor_count()) {
      return base::Failure{"a move of a chunk that cannot be"};
    }
  }
  attempt_ = attempt;
  for (const PeerId peer : reown.excluded) {
    if (const auto index = index_of(peer)) excluded_ |= ContributorMask{1} << *index;
  }
  apply_moves(plan_, reown.moves, attempt);
  for (const Reown::Move& move : reown.moves) void_result(move.chunk);
  is_digest_taken_ = false;
  find_reducible();
  return {};
}

bool Exchange::is_excluded() const {
  return self_index_ && contains(excluded_, *self_index_);
}

std::vector<Exchange::Missing> Exchange::missing() const {
  std::vector<Missing> missing;
  for (int64_t chunk = 0; chunk < int64_t(chunks_.size()); ++chunk) {
    const Chunk& c = chunks_[size_t(chunk)];
    if (c.result) continue;
    if (!is_ours(chunk)) {
      const int64_t owner = plan_.owners[size_t(chunk)];
      missing.push_back({name_of(WantKind::kResult, chunk), provider(owner)});
      continue;
    }
    for (int64_t index = 0; index < contributor_count(); ++index) {
      const bool is_there = !c.parts.empty() && c.parts[size_t(index)];
      if (index == *self_index_ || is_there || contains(excluded_, index)) continue;
      ChunkName name = name_of(WantKind::kContribution, chunk);
      name.contributor = provider(index).peer;
      missing.push_back({name, provider(index)});
    }
  }
  return missing;
}

base::Result<void> Exchange::deliver(const ChunkName& name, PeerId from, const Bytes& payload) {
  // The fetcher hands on only what is wanted, and after a Reown that is something else.
  CHECK(name.attempt == plan_.attempts[name.chunk] && !chunks_[name.chunk].result,
        "chunk {} of attempt {}", name.chunk, name.attempt);
  bytes_sent_ += kWantFrameBytes;
  bytes_received_ += kFrameHeaderBytes + int64_t(payload->size());
  return name.kind == WantKind::kContribution ? take_contribution(name, from, payload)
                                              : take_result(name, payload);
}

base::Result<void> Exchange::take_contribution(const ChunkName& name, PeerId from,
                                               const Bytes& payload) {
  const auto index = index_of(from);
  if (!index || !is_ours(name.chunk)) return base::Failure{"a contribution of somebody else"};
  const auto encoded = std::span(*payload).subspan(size_t(kContributionOffset));
  const auto checked = store_.check_contribution(name.fragment, name.chunk, encoded);
  if (!checked.ok()) return checked;
  Chunk& chunk = chunks_[name.chunk];
  chunk.parts.resize(size_t(contributor_count()));
  chunk.parts[size_t(*index)] = payload;
  if (has_all_parts(name.chunk)) reducible_.insert(name.chunk);
  return {};
}

base::Result<void> Exchange::take_result(const ChunkName& name, const Bytes& payload) {
  const auto header = read_result_header(*payload);
  if (!header.ok()) return base::Failure{header.reason()};
  const ContributorMask contributors = header->contributors;
  int64_t weight_tokens = 0;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    if (!contains(contributors, index)) continue;
    weight_tokens += setup_.open.contributors[size_t(index)].weight_tokens;
  }
  const ContributorMask named = contributors | header->judged_out;
  const bool has_strangers = contributor_count() < kMembersMax && named >> contributor_count() != 0;
  const bool is_both = (contributors & header->judged_out) != 0;
  if (contributors == 0 || is_both || has_strangers || weight_tokens != header->weight_tokens) {
    return base::Failure{fmt::format("a result of contributors {:x} with weight {}", contributors,
                                     header->weight_tokens)};
  }
  const auto encoded = std::span(*payload).subspan(size_t(kResultOffset));
  const auto checked = store_.check_result(name.fragment, name.chunk, encoded);
  if (!checked.ok()) return checked;
  set_result(name.chunk, *header, payload);
  return {};
}

Answer Exchange::answer(const ChunkName& name) {
  if (name.chunk >= chunks_.size()) return gone();
  if (name.attempt < plan_.attempts[name.chunk]) return gone();
  if (name.attempt > attempt_) return not_yet();  // The Reown that the other one knows will come.
  const Chunk& chunk = chunks_[name.chunk];
  const bool is_result = name.kind == WantKind::kResult;
  if (is_result && !is_ours(name.chunk)) return gone();
  if (is_result && !chunk.result) return not_yet();
  Answer answer =
      is_result ? Answer{Answer::Kind::kChunk, chunk.result} : answer_contribution(name);
  if (answer.kind == Answer::Kind::kChunk) {
    bytes_received_ += kWantFrameBytes;
    bytes_sent_ += kFrameHeaderBytes + int64_t(answer.payload->size());
  }
  return answer;
}

Answer Exchange::answer_contribution(const ChunkName& name) {
  if (!is_contributor()) return gone();
  Bytes payload = store_.contribution(name.fragment, name.chunk);
  if (!payload) return gone();
  return {.kind = Answer::Kind::kChunk, .payload = std::move(payload)};
}

bool Exchange::work(int64_t step_limit) {
  for (; step_limit > 0 && !reducible_.empty(); --step_limit) {
    const int64_t chunk = *reducible_.begin();
    reducible_.erase(reducible_.begin());
    reduce(chunk);
  }
  for (; step_limit > 0 && !unhashed_.empty(); --step_limit) {
    Chunk& chunk = chunks_[size_t(*unhashed_.begin())];
    unhashed_.erase(unhashed_.begin());
    chunk.digest = base::sha256(*chunk.result);
    ++hashed_count_;
  }
  if (hashed_count_ == int64_t(chunks_.size()) && !digest_) digest_ = digest_of_all();
  return !reducible_.empty() || !unhashed_.empty();
}

// Of the chunks' digests in their order, so that a result that comes late, or again, is hashed
// alone.
base::Digest Exchange::digest_of_all() const {
  base::Sha256 hash;
  for (const Chunk& chunk : chunks_) hash.update(std::as_bytes(std::span(chunk.digest->bytes)));
  return hash.finish();
}

std::optional<base::Digest> Exchange::take_digest() {
  if (!digest_ || is_digest_taken_) return std::nullopt;
  is_digest_taken_ = true;
  return digest_;
}

Committed Exchange::finish(const Commit& commit, uint64_t epoch, Instant now) const {
  CHECK(holds_all(), "round {}", setup_.authority.round);
  Committed committed;
  committed.fragment = setup_.authority.fragment;
  committed.round = setup_.authority.round;
  committed.epoch = epoch;
  committed.step = commit.step;
  ContributorMask in_any = 0, ours = 0;
  for (const PeerId self : {setup_.self, setup_.earlier_self}) {
    if (const auto index = index_of(self)) ours |= ContributorMask{1} << *index;
  }
  committed.contributed = ours != 0;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    in_any |= chunk.header.contributors;
    committed.has_ours.push_back(((chunk.header.contributors | chunk.header.judged_out) & ours) !=
                                 0);
    committed.results.push_back({.peer = provider(plan_.owners[i]).peer,
                                 .weight_tokens = chunk.header.weight_tokens,
                                 .bytes = chunk.result,
                                 .offset = kResultOffset});
  }
  for (int64_t index = 0; index < contributor_count(); ++index) {
    if (!contains(in_any, index)) continue;
    committed.members.push_back(setup_.open.contributors[size_t(index)].peer);
    committed.weight_tokens += setup_.open.contributors[size_t(index)].weight_tokens;
  }
  committed.result_digest = *digest_;
  committed.bytes_sent = bytes_sent_;
  committed.bytes_received = bytes_received_;
  committed.seconds = std::chrono::duration<double>(now - setup_.opened_at).count();
  return committed;
}

bool Exchange::is_ours(int64_t chunk) const {
  return self_index_ && plan_.owners[size_t(chunk)] == *self_index_;
}

bool Exchange::has_all_parts(int64_t chunk) const {
  const auto& parts = chunks_[size_t(chunk)].parts;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    if (index == *self_index_ || contains(excluded_, index)) continue;
    if (parts.empty() || !parts[size_t(index)]) return false;
  }
  return true;
}

ChunkName Exchange::name_of(WantKind kind, int64_t chunk) const {
  ChunkName name = chunk_name(kind, setup_.authority);
  name.attempt = plan_.attempts[size_t(chunk)];
  name.chunk = uint32_t(chunk);
  return name;
}

Donor Exchange::provider(int64_t index) const {
  const Contributor& contributor = setup_.open.contributors[size_t(index)];
  return {.peer = contributor.peer, .data = contributor.data};
}

std::optional<int64_t> Exchange::index_of(PeerId peer) const {
  const auto& contributors = setup_.open.contributors;
  const auto found = std::ranges::find(contributors, peer, &Contributor::peer);
  if (found == contributors.end()) return std::nullopt;
  return found - contributors.begin();
}

void Exchange::void_result(int64_t chunk) {
  if (chunks_[size_t(chunk)].digest) --hashed_count_;
  chunks_[size_t(chunk)] = {};
  reducible_.erase(chunk);
  unhashed_.erase(chunk);
  digest_.reset();
}

void Exchange::set_result(int64_t chunk, const ResultHeader& header, Bytes payload) {
  Chunk& c = chunks_[size_t(chunk)];
  c.parts.clear();
  c.header = header;
  c.result = std::move(payload);
  unhashed_.insert(chunk);
}

// Contributors that are out are not waited for any more, but what they delivered counts.
void Exchange::find_reducible() {
  for (int64_t chunk = 0; chunk < int64_t(chunks_.size()); ++chunk) {
    if (!is_ours(chunk) || chunks_[size_t(chunk)].result) continue;
    if (has_all_parts(chunk)) reducible_.insert(chunk);
  }
}

// In the order of peer ids, whatever the order of arrival, so that a round can be computed again.
void Exchange::reduce(int64_t chunk) {
  const int64_t fragment = setup_.authority.fragment;
  Chunk& c = chunks_[size_t(chunk)];
  c.parts.resize(size_t(contributor_count()));
  std::vector<FragmentStore::Part> parts;
  ResultHeader header;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    Bytes bytes =
        index == *self_index_ ? own_contribution(chunk) : std::move(c.parts[size_t(index)]);
    if (!bytes) continue;
    const Contributor& contributor = setup_.open.contributors[size_t(index)];
    parts.push_back(
        {contributor.peer, contributor.weight_tokens, std::move(bytes), kContributionOffset});
  }
  if (parts.empty()) return;  // The others will notice that this chunk does not come.
  const FragmentStore::Mean mean = store_.reduce(fragment, chunk, parts);
  for (const FragmentStore::Part& part : parts) {
    const ContributorMask bit = ContributorMask{1} << *index_of(part.peer);
    if (std::ranges::find(mean.left_out, part.peer) != mean.left_out.end()) {
      header.judged_out |= bit;
    } else {
      header.contributors |= bit;
      header.weight_tokens += part.weight_tokens;
    }
  }
  set_result(chunk, header, result_payload(header, mean.encoded));
  has_new_results_ = true;
}

// Null if it is not fit to be summed.
Bytes Exchange::own_contribution(int64_t chunk) {
  const int64_t fragment = setup_.authority.fragment;
  Bytes payload = store_.contribution(fragment, chunk);
  const auto checked =
      payload ? store_.check_contribution(fragment, chunk,
                                          std::span(*payload).subspan(size_t(kContributionOffset)))
              : base::Result<void>(base::Failure{"nothing is frozen for it"});
  if (checked.ok()) return payload;
  base::log_warning("round {} of fragment {}: left out our own part of chunk {}: {}",
                    setup_.authority.round, fragment, chunk, checked.reason());
  return {};
}

}  // namespace net
