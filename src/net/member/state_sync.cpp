#include "net/member/state_sync.h"

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "net/probe.h"

namespace net {
namespace {

// It may well happen once; a transfer that is outrun so often is slow.
constexpr int64_t kOutrunsTold = 4;
// A donor hears of commits when we do. What is farther ahead than that was made up.
constexpr uint64_t kAheadMax = 8;

}  // namespace

StateSync::StateSync(FragmentStore& store, Fetcher& fetcher, std::vector<FragmentState> states)
    : store_(store), fetcher_(fetcher), states_(std::move(states)) {
  CHECK(int64_t(states_.size()) == store.fragment_count(), "{} states", states_.size());
  for (int64_t f = 0; f < store.fragment_count(); ++f) fragments_.emplace_back(store, f);
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
    for (const int64_t fragment : stale) fetch(fragment, now);
    want_digests();
    return finish_if_complete();
  }
  if (phase_ == Phase::kAnnounced && is_known) return {};
  probe<"a second announcement before the first was answered">(unanswered_count_ > 0);
  fetcher_.forget_if([](const ChunkName& name) { return is_for_catching_up(name.kind); });
  phase_ = Phase::kAnnounced;
  announced_.insert(stale.begin(), stale.end());
  ++unanswered_count_;
  return CatchUpNeeded{.fragments = {announced_.begin(), announced_.end()}};
}

StateSync::Outcome StateSync::begin_fetch(Instant now) {
  CHECK(expected_ && phase_ != Phase::kSettled, "no fetch was asked for");
  // Between an announcement and its answer there may have been another one.
  if (unanswered_count_ > 0 && --unanswered_count_ > 0) return {};
  probe<"a fetched state has another digest">(phase_ == Phase::kVerifying);
  if (phase_ == Phase::kVerifying) suspect_fetched();
  phase_ = Phase::kFetching;
  if (!moved_at_) moved_at_ = outrun_.since = now;
  ++fetch_count_;
  for (const int64_t fragment : stale_fragments()) {
    announced_.insert(fragment);
    fetch(fragment, now);
  }
  want_digests();
  return finish_if_complete();
}

StateSync::Outcome StateSync::synced(std::vector<FragmentState> states, Instant now) {
  CHECK(phase_ == Phase::kVerifying && states.size() == states_.size(), "{} states", states.size());
  states_ = std::move(states);
  phase_ = Phase::kSettled;
  announced_.clear();
  suspects_.clear();
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

// What is there stays, if it can be brought on.
void StateSync::fetch(int64_t fragment, Instant now) {
  FragmentCatchUp& catch_up = fragments_[size_t(fragment)];
  const uint64_t version = expected_->states[size_t(fragment)].version;
  FragmentState& ours = states_[size_t(fragment)];
  if (!is_being_fetched(size_t(fragment))) {
    catch_up.start(version, ours.version <= version ? ours.version : kNoVersion);
    ours = {.version = kNoVersion, .digest = {}};
  } else if (catch_up.retarget(version) > 0) {
    probe<"the state moved on before all of it was here">();
    note_outrun(fragment, now);
  }
  want(fragment, catch_up.need());
}

// The trainer found that something is wrong. Where nobody knows yet what is right, it shows later.
void StateSync::suspect_fetched() {
  for (const int64_t fragment : announced_) {
    const FragmentState& fetched = fetched_[size_t(fragment)];
    if (!is_being_fetched(size_t(fragment)) || fetched.digest.is_zero()) continue;
    suspects_[fragment] = fetched;
  }
}

void StateSync::want_digests() {
  if (expected_->donors.empty()) return;
  for (const auto& [fragment, state] : suspects_) {
    fetcher_.want(
        {.kind = WantKind::kDigests, .fragment = uint32_t(fragment), .round = state.version},
        donors_from(fragment));
  }
}

// Blocks cannot be brought on any more. Said when it happens again and again.
void StateSync::note_outrun(int64_t fragment, Instant now) {
  const FragmentCatchUp& catch_up = fragments_[size_t(fragment)];
  fetcher_.forget_if([&](const ChunkName& name) {
    return name.kind == WantKind::kPast && name.fragment == fragment &&
           !catch_up.needs({.round = name.round, .chunk = name.chunk});
  });
  ++outrun_.count;
  if (outrun_.count < kOutrunsTold || !std::has_single_bit(uint64_t(outrun_.count))) return;
  const double seconds = std::chrono::duration<double>(now - outrun_.since).count();
  base::log_warning(
      "this node cannot catch up: fragment {} moved on to version {} when {} of {} blocks were "
      "of use, and it is the {}th time that others are fetched again. In {:.0f} s {:.2f} Mbit/s "
      "came. A faster line, longer rounds (outer.inner_steps) or nodes that keep more results "
      "(node.results_kept) would help",
      fragment, catch_up.target(), catch_up.present_count(), store_.block_count(fragment),
      outrun_.count, seconds, seconds > 0 ? double(outrun_.bytes) * 8e-6 / seconds : 0.0);
}

void StateSync::want(int64_t fragment, const FragmentCatchUp::Need& need) {
  probe<"there is no donor">(expected_->donors.empty());
  if (expected_->donors.empty()) return;  // The coordinator names others as soon as there are any.
  for (const int64_t block : need.blocks) {
    fetcher_.want(
        {.kind = WantKind::kState, .fragment = uint32_t(fragment), .chunk = uint32_t(block)},
        donors_from(block));
  }
  for (const auto& [round, chunk] : need.results) {
    fetcher_.want({.kind = WantKind::kPast,
                   .fragment = uint32_t(fragment),
                   .round = round,
                   .chunk = uint32_t(chunk)},
                  donors_from(chunk));
  }
}

std::vector<Donor> StateSync::donors_from(int64_t turn) const {
  std::vector<Donor> turns = expected_->donors;
  const int64_t first = (turn + fetch_count_ + outrun_.count) % int64_t(turns.size());
  std::rotate(turns.begin(), turns.begin() + first, turns.end());
  return turns;
}

StateSync::Outcome StateSync::deliver(const Fetcher::Delivery& delivery, const Bytes& payload,
                                      Turn turn) {
  const auto taken = [&] {
    switch (delivery.name.kind) {
      case WantKind::kPast:
        return take_past(delivery.name, payload);
      case WantKind::kDigests:
        return take_digests(delivery.name, payload);
      default:
        return take_block(delivery.name, payload);
    }
  }();
  if (!taken.ok()) {
    fetcher_.bad(delivery, taken.reason(), turn);
    return {};
  }
  if (!*taken) {
    fetcher_.not_yet(delivery, turn);
    return {};
  }
  fetcher_.taken(delivery);
  moved_at_ = turn.now;
  outrun_.bytes += int64_t(payload->size());
  return finish_if_complete();
}

// False: not of a version that is of use.
base::Result<bool> StateSync::take_block(const ChunkName& name, const Bytes& payload) {
  FragmentCatchUp& catch_up = fragments_[name.fragment];
  const auto version = read_state_version(*payload);
  if (!version.ok()) return base::Failure{version.reason()};
  if (*version < catch_up.oldest() || *version > catch_up.target() + kAheadMax) return false;
  const auto block = std::span(*payload).subspan(size_t(kStateOffset));
  const auto written = store_.write_block(name.fragment, name.chunk, block);
  if (!written.ok()) return base::Failure{written.reason()};
  catch_up.take_block(name.chunk, *version);
  want(name.fragment, catch_up.need_of(name.chunk));
  return true;
}

base::Result<bool> StateSync::take_past(const ChunkName& name, const Bytes& payload) {
  auto past = read_past(payload);
  if (!past.ok()) return base::Failure{past.reason()};
  const auto checked = past->is_refused
                           ? base::Result<void>{}
                           : store_.check_result(name.fragment, name.chunk, past->result.encoded());
  if (!checked.ok()) return base::Failure{checked.reason()};
  fragments_[name.fragment].take_result({.round = name.round, .chunk = name.chunk},
                                        std::move(*past));
  return true;
}

base::Result<bool> StateSync::take_digests(const ChunkName& name, const Bytes& payload) {
  const auto suspect = suspects_.find(name.fragment);
  if (suspect == suspects_.end()) return true;
  const auto wrong = store_.wrong_blocks(name.fragment, suspect->second,
                                         std::span(*payload).subspan(size_t(kDigestsOffset)));
  if (!wrong.ok()) return base::Failure{wrong.reason()};
  if (!wrong->empty()) {
    base::log_warning("{} blocks of fragment {} are wrong, and are fetched again", wrong->size(),
                      name.fragment);
  }
  suspects_.erase(suspect);
  fragments_[name.fragment].drop(*wrong);
  want(name.fragment, fragments_[name.fragment].need());
  return true;
}

StateSync::Outcome StateSync::on_nobody_has(const std::vector<ChunkName>& names, Instant now) {
  std::set<int64_t> outrun;
  for (const ChunkName& name : names) {
    FragmentCatchUp& catch_up = fragments_[name.fragment];
    if (!fetcher_.wants(name)) continue;
    if (name.kind == WantKind::kDigests) {
      lose_digests(name);
      continue;
    }
    if (!catch_up.needs({.round = name.round, .chunk = name.chunk})) continue;
    if (catch_up.lose_results(name.round) > 0) outrun.insert(name.fragment);
  }
  for (const int64_t fragment : outrun) {
    note_outrun(fragment, now);
    want(fragment, fragments_[size_t(fragment)].need());
  }
  return phase_ == Phase::kFetching && !names.empty() ? finish_if_complete() : Outcome{};
}

// If the state has moved on, that of the next version will show what is wrong; otherwise it is
// fetched again as a whole.
void StateSync::lose_digests(const ChunkName& name) {
  FragmentCatchUp& catch_up = fragments_[name.fragment];
  suspects_.erase(name.fragment);
  fetcher_.forget_if([&](const ChunkName& other) { return other == name; });
  if (catch_up.target() == name.round) catch_up.start(name.round, kNoVersion);
  want(name.fragment, catch_up.need());
}

StateSync::Outcome StateSync::finish_if_complete() {
  if (!suspects_.empty()) return {};
  for (const int64_t fragment : announced_) {
    const bool is_there = fragments_[size_t(fragment)].is_complete();
    if (is_being_fetched(size_t(fragment)) && !is_there) return {};
  }
  fetcher_.forget_if([](const ChunkName& name) { return is_for_catching_up(name.kind); });
  phase_ = Phase::kVerifying;
  fetched_ = expected_->states;
  return Fetched{.expected = fetched_};
}

Answer StateSync::answer(const ChunkName& name) {
  if (name.fragment >= states_.size()) return gone();
  probe<"a block is wanted of one that fetches it itself">(is_being_fetched(name.fragment));
  if (is_being_fetched(name.fragment)) return gone();
  if (name.kind == WantKind::kPast) return answer_past(name);
  if (name.kind == WantKind::kDigests) return answer_digests(name);
  if (name.chunk >= store_.block_count(name.fragment)) return gone();
  const auto block = store_.read_block(name.fragment, name.chunk);
  probe<"a block is wanted while the state changes">(!block);
  if (!block) return not_yet();
  return {.kind = Answer::Kind::kChunk, .payload = state_payload(block->version, block->bytes)};
}

// What was committed last may not be applied yet. Who is further behind would only keep others from
// asking somebody else in time.
Answer StateSync::answer_past(const ChunkName& name) {
  if (name.chunk >= store_.chunk_count(name.fragment)) return gone();
  const auto past = store_.past_chunk(name.fragment, name.round, name.chunk);
  if (past) return {.kind = Answer::Kind::kChunk, .payload = past_payload(*past)};
  return name.round == applied_version(name.fragment) + 1 ? not_yet() : gone();
}

Answer StateSync::answer_digests(const ChunkName& name) {
  const auto digests = store_.digests(name.fragment, name.round);
  if (digests) return {.kind = Answer::Kind::kChunk, .payload = digests_payload(*digests)};
  return name.round >= applied_version(name.fragment) ? not_yet() : gone();
}

bool StateSync::is_silent_for(Duration patience, Turn turn) const {
  return phase_ == Phase::kFetching && moved_at_ && turn.is_due(*moved_at_ + patience);
}

}  // namespace net
