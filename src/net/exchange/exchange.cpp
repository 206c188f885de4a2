#include "net/exchange/exchange.h"

#include <algorithm>

#include "base/log.h"
#include "net/probe.h"
#include "net/wire/frame.h"

namespace net {
namespace {

constexpr int64_t kWantFrameBytes = kFrameHeaderBytes + 1;

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
  plan_ = make_plan(setup_.open, attempt_);
  chunks_.resize(plan_.trees.size());
  children_.resize(chunks_.size());
  ours_.resize(chunks_.size());
  for (size_t chunk = 0; self_index_ && chunk < chunks_.size(); ++chunk)
    children_[chunk] = plan_.trees[chunk].children(*self_index_, contributor_count());
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
  for (const Reown::Move& move : reown.moves)
    void_sums(move, plan_.trees[move.chunk].owner == move.owner);
  apply_moves(plan_, reown.moves, attempt);
  for (const Reown::Move& move : reown.moves) {
    if (!self_index_) break;
    children_[move.chunk] = tree(move.chunk).children(*self_index_, contributor_count());
  }
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
    if (c.has_result()) continue;
    if (!is_ours(chunk)) {
      missing.push_back({name_of(WantKind::kResult, chunk), provider(provider_of_result(chunk))});
    }
    if (c.is_summed()) continue;
    for (int64_t index = 0; index < contributor_count(); ++index) {
      const bool is_there = !c.parts.empty() && c.parts[size_t(index)].payload;
      if (!contains(children(chunk) & ~excluded_, index) || is_there) continue;
      ChunkName name = name_of(kind_of_part(chunk, index), chunk);
      name.contributor = provider(index).peer;
      missing.push_back({name, provider(index)});
    }
  }
  return missing;
}

base::Result<void> Exchange::deliver(const ChunkName& name, PeerId from, const Bytes& payload) {
  // The fetcher hands on only what is wanted, and after a Reown that is something else. Parts may
  // come when our parent has given us a result that was made without us.
  const bool is_over = name.kind == WantKind::kResult && chunks_[name.chunk].has_result();
  CHECK(name.attempt == plan_.attempts[name.chunk] && !is_over, "chunk {} of attempt {}",
        name.chunk, name.attempt);
  bytes_sent_ += kWantFrameBytes;
  bytes_received_ += kFrameHeaderBytes + int64_t(payload->size());
  auto check = name.kind == WantKind::kResult ? check_of_result(name, from, payload)
                                              : check_of_part(name, from, payload);
  if (!check.ok()) return base::Failure{check.reason()};
  checks_.push_back(std::move(*check));
  return {};
}

base::Result<Exchange::Task> Exchange::check_of_part(const ChunkName& name, PeerId from,
                                                     const Bytes& payload) const {
  const auto index = index_of(from);
  if (!index || !contains(children(name.chunk), *index) ||
      kind_of_part(name.chunk, *index) != name.kind) {
    return base::Failure{"a contribution of somebody else"};
  }
  Task task{.name = name, .from = from, .work = {}};
  if (name.kind == WantKind::kContribution) {
    const base::Digest& root = setup_.open.contributors[size_t(*index)].contribution;
    task.work = [&store = store_, name, root, payload] {
      return net::check_contribution(store, name, root, payload);
    };
    return task;
  }
  const auto header = read_result_header(*payload);
  if (!header.ok()) return base::Failure{header.reason()};
  const auto checked = check_header(*header, tree(name.chunk).below(*index, contributor_count()));
  if (!checked.ok()) return base::Failure{checked.reason()};
  task.work = [&store = store_, name, header = *header, payload] {
    return net::check_subtotal(store, name, header, payload);
  };
  return task;
}

base::Result<Exchange::Task> Exchange::check_of_result(const ChunkName& name, PeerId from,
                                                       const Bytes& payload) const {
  const auto header = read_result_header(*payload);
  if (!header.ok()) return base::Failure{header.reason()};
  const ContributorMask all = ~ContributorMask{0} >> (kMembersMax - contributor_count());
  if (const auto checked = check_header(*header, all); !checked.ok())
    return base::Failure{checked.reason()};
  return Task{
      .name = name, .from = from, .work = [&store = store_, name, header = *header, payload] {
        return net::check_result(store, name, header, payload);
      }};
}

base::Result<void> Exchange::check_header(const ResultHeader& header,
                                          ContributorMask possible) const {
  int64_t weight_tokens = 0;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    if (!contains(header.contributors, index)) continue;
    weight_tokens += setup_.open.contributors[size_t(index)].weight_tokens;
  }
  const ContributorMask named = header.contributors | header.judged_out;
  const bool has_strangers = (named & ~possible) != 0;
  const bool is_both = (header.contributors & header.judged_out) != 0;
  if (header.contributors == 0 || is_both || has_strangers ||
      weight_tokens != header.weight_tokens) {
    probe<"a result with a header that cannot be">();
    return base::Failure{fmt::format("a result of contributors {:x} with weight {}",
                                     header.contributors, header.weight_tokens)};
  }
  return {};
}

Answer Exchange::answer(const ChunkName& name) {
  if (name.chunk >= chunks_.size()) return gone();
  probe<"a chunk is wanted of its earlier owner">(name.attempt < plan_.attempts[name.chunk]);
  if (name.attempt < plan_.attempts[name.chunk]) return gone();
  probe<"another member knows of a Reown first">(name.attempt > attempt_);
  if (name.attempt > attempt_) return not_yet();  // The Reown that the other one knows will come.
  Answer answer =
      name.kind == WantKind::kContribution ? answer_contribution(name) : answer_sum(name);
  if (answer.kind == Answer::Kind::kChunk) {
    bytes_received_ += kWantFrameBytes;
    bytes_sent_ += kFrameHeaderBytes + int64_t(answer.payload->size());
  }
  return answer;
}

// Whoever brings us something for a chunk may have its result of us.
Answer Exchange::answer_sum(const ChunkName& name) const {
  const Chunk& chunk = chunks_[name.chunk];
  const bool is_result = name.kind == WantKind::kResult;
  const bool has_children = children(name.chunk) != 0;
  if (is_result ? !is_ours(name.chunk) && !has_children : is_ours(name.chunk) || !has_children)
    return gone();
  const Bytes& payload = is_result ? chunk.result.payload : chunk.subtotal.payload;
  if (!payload) return not_yet();
  return {.kind = Answer::Kind::kChunk, .payload = payload};
}

Answer Exchange::answer_contribution(const ChunkName& name) {
  if (!is_contributor()) return gone();
  Bytes payload = store_.contribution(name.fragment, name.chunk);
  if (!payload) return gone();
  ours_[name.chunk] = payload;
  return {.kind = Answer::Kind::kChunk, .payload = std::move(payload)};
}

std::optional<Exchange::Task> Exchange::next_task() {
  if (!reducible_.empty()) {
    const int64_t chunk = *reducible_.begin();
    reducible_.erase(reducible_.begin());
    return sum_of(chunk);
  }
  while (!checks_.empty()) {
    Task task = std::move(checks_.front());
    checks_.pop_front();
    if (task.name.attempt == plan_.attempts[task.name.chunk]) return task;
  }
  return std::nullopt;
}

// A chunk that has another owner meanwhile has another attempt.
base::Result<void> Exchange::finish(const Task& task, base::Result<Product> product) {
  const int64_t chunk = task.name.chunk;
  const bool is_sum = task.from == kNobody;
  if (task.name.attempt != plan_.attempts[size_t(chunk)]) return {};
  if (!product.ok()) {
    if (is_sum) return {};  // The others will notice that this chunk does not come.
    probe<"a chunk comes that the store refuses">();
    return base::Failure{product.reason()};
  }
  if (!is_sum && task.name.kind != WantKind::kResult) {
    take_part(chunk, task.from, std::move(*product));
    return {};
  }
  has_new_results_ |= is_sum || children(chunk) != 0;
  if (task.name.kind == WantKind::kResult) {
    set_result(chunk, std::move(*product));
  } else if (!chunks_[size_t(chunk)].has_result()) {
    chunks_[size_t(chunk)].subtotal = std::move(*product);
    chunks_[size_t(chunk)].is_being_summed = false;
  }
  return {};
}

// Too late if its contributor is out by now, and the sum was made without it.
void Exchange::take_part(int64_t chunk, PeerId from, Product part) {
  Chunk& c = chunks_[size_t(chunk)];
  if (c.is_summed()) return;
  c.parts.resize(size_t(contributor_count()));
  c.parts[size_t(*index_of(from))] = std::move(part);
  if (has_all_parts(chunk)) reducible_.insert(chunk);
}

// Of the chunks' digests in their order, so that a result that comes late, or again, is hashed
// alone.
base::Digest Exchange::digest_of_all() const {
  base::Sha256 hash;
  for (const Chunk& chunk : chunks_)
    hash.update(std::as_bytes(std::span(chunk.result.digest.bytes)));
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
  committed.term = setup_.authority.term;
  committed.epoch = epoch;
  committed.step = commit.step;
  committed.plan = setup_.open.plan;
  committed.estimated_seconds = setup_.open.estimated_ms / 1e3;
  ContributorMask in_any = 0, ours = 0;
  for (const PeerId self : {setup_.self, setup_.earlier_self}) {
    if (const auto index = index_of(self)) ours |= ContributorMask{1} << *index;
  }
  committed.contributed = ours != 0;
  probe<"a member finds what it delivered under another number">(
      setup_.earlier_self != kNobody && index_of(setup_.earlier_self).has_value());
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    const ResultHeader& header = chunk.result.header;
    in_any |= header.contributors;
    probe<"a chunk is committed without our part">(ours != 0 && (header.contributors & ours) == 0);
    committed.has_ours.push_back(((header.contributors | header.judged_out) & ours) != 0);
    committed.results.push_back({.peer = provider(plan_.trees[i].owner).peer,
                                 .weight_tokens = header.weight_tokens,
                                 .bytes = chunk.result.payload,
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

std::optional<Audit::Record> Exchange::record() const {
  if (!is_contributor()) return std::nullopt;
  Audit::Record record{.self = setup_.self,
                       .authority = authority(),
                       .contributors = setup_.open.contributors,
                       .chunks = {},
                       .ours = ours_};
  for (size_t i = 0; i < chunks_.size(); ++i) {
    record.chunks.push_back({.attempt = plan_.attempts[i],
                             .owner = provider(plan_.trees[i].owner).peer,
                             .is_direct = plan_.trees[i].is_direct(),
                             .header = chunks_[i].result.header,
                             .published = chunks_[i].result.digest});
  }
  return record;
}

bool Exchange::is_ours(int64_t chunk) const {
  return self_index_ && tree(chunk).owner == *self_index_;
}

ContributorMask Exchange::children(int64_t chunk) const {
  return children_[size_t(chunk)];
}

WantKind Exchange::kind_of_part(int64_t chunk, int64_t index) const {
  return tree(chunk).is_inner(index) ? WantKind::kSubtotal : WantKind::kContribution;
}

// Who does not contribute stands in no tree.
int64_t Exchange::provider_of_result(int64_t chunk) const {
  return self_index_ ? tree(chunk).parent(*self_index_) : tree(chunk).owner;
}

bool Exchange::has_all_parts(int64_t chunk) const {
  const auto& parts = chunks_[size_t(chunk)].parts;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    if (!contains(children(chunk) & ~excluded_, index)) continue;
    if (parts.empty() || !parts[size_t(index)].payload) return false;
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
  return {.peer = contributor.peer, .data = contributor.data, .node_key = contributor.node_key};
}

std::optional<int64_t> Exchange::index_of(PeerId peer) const {
  const auto& contributors = setup_.open.contributors;
  const auto found = std::ranges::find(contributors, peer, &Contributor::peer);
  if (found == contributors.end()) return std::nullopt;
  return found - contributors.begin();
}

// What an owner had made it gives to everybody as it is. If it had not, nobody has it: it begins
// anew, with the contributions that it has.
void Exchange::void_sums(const Reown::Move& move, bool is_same_owner) {
  Chunk& c = chunks_[move.chunk];
  probe<"a result stays when its chunk is summed in another way">(is_same_owner && c.has_result());
  if (is_same_owner && c.has_result()) return;
  probe<"a result is void">(c.has_result());
  if (c.has_result()) --result_count_;
  std::vector<Product> kept;
  if (is_same_owner && is_ours(move.chunk)) kept = std::move(c.parts);
  for (int64_t index = 0; index < int64_t(kept.size()); ++index) {
    if (kind_of_part(move.chunk, index) == WantKind::kSubtotal) kept[size_t(index)] = {};
  }
  c = {.parts = std::move(kept), .is_being_summed = false, .subtotal = {}, .result = {}};
  reducible_.erase(move.chunk);
  digest_.reset();
}

void Exchange::set_result(int64_t chunk, Product result) {
  chunks_[size_t(chunk)] = {
      .parts = {}, .is_being_summed = false, .subtotal = {}, .result = std::move(result)};
  if (++result_count_ == int64_t(chunks_.size())) digest_ = digest_of_all();
}

// Contributors that are out are not waited for any more, but what they delivered counts.
void Exchange::find_reducible() {
  for (int64_t chunk = 0; chunk < int64_t(chunks_.size()); ++chunk) {
    const Chunk& c = chunks_[size_t(chunk)];
    if ((!is_ours(chunk) && children(chunk) == 0) || c.is_summed()) continue;
    if (has_all_parts(chunk)) reducible_.insert(chunk);
  }
}

// In the order of peer ids, whatever the order of arrival, so that a round can be computed again.
Exchange::Task Exchange::sum_of(int64_t chunk) {
  const ChunkName name = name_of(is_ours(chunk) ? WantKind::kResult : WantKind::kSubtotal, chunk);
  Chunk& c = chunks_[size_t(chunk)];
  c.is_being_summed = true;
  c.parts.resize(size_t(contributor_count()));
  std::vector<Summand> summands;
  for (int64_t index = 0; index < contributor_count(); ++index) {
    const bool is_one = index == *self_index_ || contains(children(chunk), index);
    auto part = is_one ? summand(chunk, index) : std::nullopt;
    probe<"a sum is made without one that fell out">(is_one && !part && contains(excluded_, index));
    if (!part) continue;
    probe<"one that fell out had delivered its part">(contains(excluded_, index));
    summands.push_back(std::move(*part));
  }
  c.parts.clear();
  probe<"a subtotal is made">(name.kind == WantKind::kSubtotal);
  return {.name = name,
          .from = kNobody,
          .work = [&store = store_, name, summands = std::move(summands)] {
            return net::sum(store, name, summands);
          }};
}

// Nothing if there is none of it. A part is given away.
std::optional<Summand> Exchange::summand(int64_t chunk, int64_t index) {
  const Contributor& contributor = setup_.open.contributors[size_t(index)];
  Summand summand{.index = index,
                  .part = {.peer = contributor.peer, .weight_tokens = contributor.weight_tokens},
                  .header = header_of(index, contributor),
                  .is_checked = index != *self_index_};
  if (index == *self_index_) {
    summand.part.bytes = store_.contribution(setup_.authority.fragment, chunk);
    if (summand.part.bytes) ours_[size_t(chunk)] = summand.part.bytes;
    if (!summand.part.bytes) {
      base::log_warning("round {} of fragment {}: nothing of ours is frozen for chunk {}",
                        setup_.authority.round, setup_.authority.fragment, chunk);
    }
  } else {
    Product& part = chunks_[size_t(chunk)].parts[size_t(index)];
    summand.part.bytes = std::move(part.payload);
    summand.part.is_subtotal = kind_of_part(chunk, index) == WantKind::kSubtotal;
    if (summand.part.is_subtotal) summand.header = part.header;
    summand.part.weight_tokens = summand.header.weight_tokens;
  }
  summand.part.offset = summand.part.is_subtotal ? kResultOffset : kContributionOffset;
  if (!summand.part.bytes) return std::nullopt;
  return summand;
}

}  // namespace net
