#include "net/member/state_sync.h"

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

// A round may well commit in the middle of a transfer; a transfer that is outrun so often is slow.
constexpr int64_t kOutrunsTold = 4;

}  // namespace

StateSync::StateSync(FragmentStore& store, Fetcher& fetcher, std::vector<FragmentState> states)
    : store_(store), fetcher_(fetcher), states_(std::move(states)) {
  CHECK(int64_t(states_.size()) == store.fragment_count(), "{} states", states_.size());
  collections_.resize(states_.size());
}

base::Result<StateSync::Outcome> StateSync::on_catch_up(const CatchUp& catch_up, PeerId self,
                                                        Instant now) {
  if (catch_up.states.size() != states_.size()) {
    return base::Failure{fmt::format("a state with {} fragments instead of {}",
                                     catch_up.states.size(), states_.size())};
  }
  expected_ = catch_up;
  std::erase_if(expected_->donors, [&](const Donor& donor) { return donor.peer == self; });
  return review(now);
}

bool StateSync::is_stale(size_t fragment) const {
  const FragmentState& have = states_[fragment];
  const FragmentState& want = expected_->states[fragment];
  if (have.version != want.version) return true;
  return !want.digest.is_zero() && have.digest != want.digest;
}

std::set<int64_t> StateSync::stale_fragments() const {
  std::set<int64_t> stale;
  for (size_t i = 0; i < states_.size(); ++i) {
    if (is_stale(i)) stale.insert(int64_t(i));
  }
  return stale;
}

StateSync::Outcome StateSync::review(Instant now) {
  if (!expected_ || !being_applied_.empty() || phase_ == Phase::kVerifying) return {};
  const std::set<int64_t> stale = stale_fragments();
  probe<"the state in force moves on while it is fetched">(phase_ == Phase::kFetching &&
                                                           !stale.empty());
  // What was announced to the trainer takes its way, even if it is not needed any more.
  if (phase_ == Phase::kSettled && stale.empty()) return TellSynced{};
  const bool is_known = std::ranges::includes(announced_, stale);
  if (phase_ == Phase::kFetching && is_known) {
    for (const int64_t fragment : stale) {
      const uint64_t version = expected_->states[size_t(fragment)].version;
      fetch(fragment, version, now);
      want_missing(fragment);
    }
    return finish_if_complete();
  }
  if (phase_ == Phase::kAnnounced && is_known) return {};
  probe<"a second announcement before the first was answered">(unanswered_count_ > 0);
  fetcher_.forget_if([](const ChunkName& name) { return name.kind == WantKind::kState; });
  phase_ = Phase::kAnnounced;
  announced_.insert(stale.begin(), stale.end());
  ++unanswered_count_;
  return CatchUpNeeded{.fragments = {announced_.begin(), announced_.end()}};
}

StateSync::Outcome StateSync::begin_fetch(Instant now) {
  CHECK(expected_ && phase_ != Phase::kSettled, "no fetch was asked for");
  // Between an announcement and its answer there may have been another one.
  if (unanswered_count_ > 0 && --unanswered_count_ > 0) return {};
  if (phase_ == Phase::kVerifying) {
    probe<"a fetched state has another digest">();
    for (Collection& collection : collections_) collection = {};
  }
  phase_ = Phase::kFetching;
  if (!moved_at_) moved_at_ = now;
  ++fetch_count_;
  for (const int64_t fragment : stale_fragments()) {
    announced_.insert(fragment);
    fetch(fragment, expected_->states[size_t(fragment)].version, now);
    want_missing(fragment);
  }
  return finish_if_complete();
}

StateSync::Outcome StateSync::synced(std::vector<FragmentState> states, Instant now) {
  CHECK(phase_ == Phase::kVerifying && states.size() == states_.size(), "{} states", states.size());
  states_ = std::move(states);
  phase_ = Phase::kSettled;
  announced_.clear();
  for (Collection& collection : collections_) collection = {};
  moved_at_.reset();
  outrun_ = {};
  return review(now);
}

void StateSync::on_committed(int64_t fragment, uint64_t version) {
  states_[size_t(fragment)] = {.version = version, .digest = {}};
  being_applied_.insert(fragment);
}

StateSync::Outcome StateSync::applied(int64_t fragment, const FragmentState& state, Instant now) {
  const auto oldest = being_applied_.find(fragment);
  if (oldest != being_applied_.end()) being_applied_.erase(oldest);
  probe<"two commits are being applied">(being_applied_.contains(fragment));
  if (being_applied_.contains(fragment)) return {};  // A newer commit is being applied already.
  states_[size_t(fragment)] = state;
  return review(now);
}

// What is there of this version stays.
void StateSync::fetch(int64_t fragment, uint64_t version, Instant now) {
  Collection& collection = collections_[size_t(fragment)];
  if (is_being_fetched(size_t(fragment)) && collection.version == version) return;
  const bool is_outrun = is_being_fetched(size_t(fragment)) && collection.version != 0;
  probe<"the state moved on before all of it was here">(is_outrun);
  if (is_outrun) note_outrun(fragment, version, now);
  states_[size_t(fragment)] = {.version = kNoVersion, .digest = {}};
  collection = {.version = version, .blocks = {}, .bytes = 0};
}

// The state moved on before all of it was here. Said when it happens again and again.
void StateSync::note_outrun(int64_t fragment, uint64_t version, Instant now) {
  const Collection& collection = collections_[size_t(fragment)];
  if (!outrun_.since) outrun_.since = now;
  ++outrun_.count;
  outrun_.bytes += collection.bytes;
  if (outrun_.count < kOutrunsTold || !std::has_single_bit(uint64_t(outrun_.count))) return;
  const double seconds = std::chrono::duration<double>(now - *outrun_.since).count();
  base::log_warning(
      "this node cannot catch up: fragment {} moved on to version {} when {} of {} blocks of the "
      "one before were here, and it is the {}th time. The state comes at {:.2f} Mbit/s, the run "
      "makes a round every {:.1f} s. A faster line, longer rounds (outer.inner_steps) or more "
      "fragments (outer.fragments) would help",
      fragment, version, collection.blocks.size(), store_.block_count(fragment), outrun_.count,
      seconds > 0 ? double(outrun_.bytes) * 8e-6 / seconds : 0.0, seconds / double(outrun_.count));
}

void StateSync::want_missing(int64_t fragment) {
  const auto& donors = expected_->donors;
  probe<"there is no donor">(donors.empty());
  if (donors.empty()) return;  // The coordinator names others as soon as there are any.
  for (int64_t block = 0; block < store_.block_count(fragment); ++block) {
    if (collections_[size_t(fragment)].blocks.contains(block)) continue;
    std::vector<Donor> turns = donors;
    const int64_t first = (block + fetch_count_) % int64_t(donors.size());
    std::rotate(turns.begin(), turns.begin() + first, turns.end());
    fetcher_.want(
        {.kind = WantKind::kState, .fragment = uint32_t(fragment), .chunk = uint32_t(block)},
        std::move(turns));
  }
}

StateSync::Outcome StateSync::deliver(const Fetcher::Delivery& delivery, const Bytes& payload,
                                      Turn turn) {
  const int64_t fragment = delivery.name.fragment;
  Collection& collection = collections_[size_t(fragment)];
  const auto version = read_state_version(*payload);
  if (!version.ok()) {
    fetcher_.bad(delivery, version.reason(), turn);
    return {};
  }
  if (*version < collection.version) {  // It has not applied the newest round yet.
    probe<"a donor has not applied the newest round">();
    fetcher_.not_yet(delivery, turn);
    return {};
  }
  const auto block = std::span(*payload).subspan(size_t(kStateOffset));
  const auto written = store_.write_block(fragment, delivery.name.chunk, block);
  if (!written.ok()) {
    fetcher_.bad(delivery, written.reason(), turn);
    return {};
  }
  fetcher_.taken(delivery);
  moved_at_ = turn.now;
  if (*version > collection.version) {  // It is ahead of what we were told: what we have is old.
    probe<"a donor is ahead of what we were told">();
    fetch(fragment, *version, turn.now);
    collection.blocks.insert(delivery.name.chunk);
    want_missing(fragment);
    expected_->states[size_t(fragment)] = {.version = *version, .digest = {}};
  }
  collection.blocks.insert(delivery.name.chunk);
  collection.bytes += int64_t(block.size());
  return finish_if_complete();
}

StateSync::Outcome StateSync::finish_if_complete() {
  for (const int64_t fragment : announced_) {
    const auto there = int64_t(collections_[size_t(fragment)].blocks.size());
    if (is_being_fetched(size_t(fragment)) && there < store_.block_count(fragment)) return {};
  }
  phase_ = Phase::kVerifying;
  return Fetched{.expected = expected_->states};
}

Answer StateSync::answer(const ChunkName& name) const {
  if (name.fragment >= states_.size()) return gone();
  probe<"a block is wanted of one that fetches it itself">(is_being_fetched(name.fragment));
  if (is_being_fetched(name.fragment)) return gone();
  if (name.chunk >= store_.block_count(name.fragment)) return gone();
  const auto block = store_.read_block(name.fragment, name.chunk);
  probe<"a block is wanted while the state changes">(!block);
  if (!block) return not_yet();
  return {.kind = Answer::Kind::kChunk, .payload = state_payload(block->version, block->bytes)};
}

Duration StateSync::silence(Instant now) const {
  return phase_ == Phase::kFetching && moved_at_ ? now - *moved_at_ : Duration{};
}

}  // namespace net
