#include "fuzz/machine/member_play.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "fuzz/machine/checked_outbox.h"
#include "fuzz/machine/checked_store.h"
#include "net/exchange/chunk.h"
#include "net/frozen.h"
#include "net/member.h"
#include "net/turn.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr MessageType kFromCoordinator[] = {
    MessageType::kWelcome, MessageType::kReject, MessageType::kCatchUp,    MessageType::kStart,
    MessageType::kOpen,    MessageType::kReown,  MessageType::kMembership, MessageType::kCommit,
    MessageType::kAbort,   MessageType::kNotice, MessageType::kSamples,    MessageType::kHello,
    MessageType::kKeys,    MessageType::kVisits};
constexpr MessageType kFromPeers[] = {
    MessageType::kDataHello, MessageType::kWant,  MessageType::kChunk, MessageType::kGone,
    MessageType::kDialBack,  MessageType::kHello, MessageType::kOffer, MessageType::kInvite};
// To fetch from others, and to the coordinator.
constexpr int64_t kDialledMax = 64 + 1;
constexpr int64_t kJobsMax = 32;

const Endpoint kCoordinator{"meeting.example.org", 4000};

// What the coordinator knows of a fragment's round.
struct RoundSeen {
  Authority authority;
  Open open;
  bool is_open = false;
  std::optional<base::Digest> done;  // As the member said.
};

class Play {
 public:
  explicit Play(Choices& choices);
  void run() {
    while (!choices_.is_over()) act();
  }

 private:
  void act();
  void all_act();

  // The coordinator.
  std::optional<LinkId> coordinator() const;
  void next_of_coordinator();
  void open_round(uint32_t fragment);
  void end_round(uint32_t fragment);
  CatchUp next_catch_up();
  void tell(MessageType type, Bytes payload, Authority authority = {});

  // Others.
  std::vector<LinkId> dialled_peers() const;
  void next_of_peer();
  void next_of_peer(LinkId link);
  Bytes answer_to(WantKind kind, const Authority& authority);
  void arbitrary_message();
  void next_of_guest();
  void open_link();
  void lose_link();
  void drain_link();
  std::vector<LinkId> links(const std::function<bool(const CheckedOutbox::Link&)>& which) const;
  void receive(LinkId link, MessageType type, Bytes payload, Authority authority);

  // The trainer, and its machine's workers.
  void next_of_trainer();
  void say_ready();
  void on_event(MemberEvent event);
  void on_committed(const Committed& committed);
  void finish_job();
  void pass(Duration time);
  void on_sent(LinkId link, const Message& message);

  Choices& choices_;
  CheckedOutbox out_{kDialledMax, kJobsMax};
  CheckedStore store_;
  std::unique_ptr<Member> member_;
  Instant now_ = seconds(100);

  // As the coordinator sees it.
  bool is_welcome_ = false, is_synced_ = false, is_active_ = false;
  std::vector<FragmentState> in_force_;
  std::map<uint32_t, Ready> ready_;
  std::map<uint32_t, RoundSeen> rounds_;
  std::map<LinkId, std::deque<std::pair<WantKind, Authority>>> wants_;

  // As the trainer sees it.
  std::deque<MemberEvent> events_;                // Not handled yet.
  int64_t unanswered_ = 0;                        // Events on which the trainer still has a word.
  std::map<uint32_t, base::Digest> last_commit_;  // What the coordinator said last.
  std::map<int64_t, uint64_t> reported_;          // The newest version, by fragment.
  bool is_over_ = false;
};

Play::Play(Choices& choices)
    : choices_(choices),
      store_(choices.one_in(16) ? 200'000 : 0),
      in_force_(kFuzzFragments, FragmentState{.version = 0, .digest = digest_of(0)}) {
  MemberOptions options;
  options.run_name = "run";
  options.node_name = "node";
  options.node_key = 7;
  options.config = digest_of(0);
  options.coordinator = kCoordinator;
  options.wants_in_flight_max = 1 + int64_t(choices.below(4));
  options.coordinator_patience = minutes(2);
  out_.on_send = [this](LinkId link, const Message& message) { on_sent(link, message); };
  member_ = Member::create(options, store_, in_force_, 0,
                           [this](MemberEvent event) { on_event(std::move(event)); });
  member_->on_start(now_, out_);
}

void Play::act() {
  switch (choices_.below(24)) {
    case 18:
      return open_link();
    case 19:
      return choices_.one_in(4) ? lose_link() : drain_link();
    case 20:
      return drain_link();
    case 21:
      return pass(milliseconds(50 * choices_.below(20)));
    case 22:
      return pass(choices_.one_in(8) ? Duration(minutes(1)) : Duration(seconds(choices_.below(9))));
    case 23:
      return arbitrary_message();
    case 16:
    case 17:
      return next_of_guest();
    case 14:
    case 15:
      return next_of_trainer();
    case 12:
    case 13:
      return finish_job();
    case 10:
    case 11:
      return next_of_peer();
    case 8:
    case 9:
      return next_of_coordinator();
    default:
      return all_act();
  }
}

// Everybody does what is next. With nothing else rounds are made and committed.
void Play::all_act() {
  next_of_coordinator();
  next_of_trainer();
  for (const LinkId link : dialled_peers()) next_of_peer(link);
  for (size_t count = out_.job_count(); count > 0; --count) finish_job();
}

// --- The coordinator.

std::optional<LinkId> Play::coordinator() const {
  for (const auto& [id, link] : out_.links()) {
    if (link.dialled == kCoordinator) return id;
  }
  return std::nullopt;
}

// What a coordinator in its right mind says next.
void Play::next_of_coordinator() {
  const auto link = coordinator();
  if (!link) return pass(seconds(1));
  if (!out_.links().at(*link).is_open) {
    out_.opened(*link);
    is_welcome_ = is_synced_ = is_active_ = false;
    rounds_.clear();
    ready_.clear();
    return member_->on_link_open(*link, false, {}, now_, out_);
  }
  if (!is_welcome_) {
    is_welcome_ = true;
    return tell(MessageType::kWelcome,
                encode(Welcome{.peer = 1, .heartbeat_interval_ms = 1000, .dead_after_ms = 15000}));
  }
  if (!is_synced_ || choices_.one_in(64)) {
    is_active_ = is_synced_ = false;
    rounds_.clear();
    return tell(MessageType::kCatchUp, encode(next_catch_up()));
  }
  if (!is_active_) {
    is_active_ = true;
    return tell(MessageType::kStart, encode(Start{.step = 5}));
  }
  const auto fragment = uint32_t(choices_.below(kFuzzFragments));
  if (rounds_[fragment].is_open) return end_round(fragment);
  if (ready_.contains(fragment)) return open_round(fragment);
  tell(MessageType::kHeartbeatReply, std::make_shared<const std::vector<std::byte>>());
}

CatchUp Play::next_catch_up() {
  FragmentState& state = choices_.pick(in_force_);
  if (choices_.one_in(2)) {
    state.version += choices_.below(6);
    state.digest = choices_.one_in(4) ? base::Digest{} : digest_of(state.version);
  } else if (choices_.one_in(4)) {
    state.version = choices_.below(4);
  }
  CatchUp catch_up{.states = in_force_, .donors = {}, .step = 5};
  for (const PeerId peer : {0u, 2u, 3u}) {
    if (choices_.one_in(4)) continue;
    catch_up.donors.push_back({.peer = peer, .data = data_address(peer)});
  }
  return catch_up;
}

void Play::open_round(uint32_t fragment) {
  RoundSeen& round = rounds_[fragment];
  // It may be mistaken.
  const uint64_t step = choices_.one_in(16) ? choices_.below(3) : 1;
  round = {.authority = {.term = 1,
                         .epoch = 1,
                         .round = in_force_[fragment].version + step,
                         .attempt = 1,
                         .fragment = fragment},
           .open = {},
           .is_open = true,
           .done = {}};
  for (PeerId peer = 0; peer < 3; ++peer) {
    if (peer == 1 && choices_.one_in(8)) continue;
    round.open.contributors.push_back({.peer = peer,
                                       .weight_tokens = 100 + int64_t(peer),
                                       .data = data_address(peer),
                                       .contribution = store_.contribution_from(0).root});
  }
  for (int64_t chunk = 0; chunk < kFuzzChunks; ++chunk)
    round.open.owners.push_back(
        uint8_t((uint64_t(chunk) + choices_.below(3)) % round.open.contributors.size()));
  give_plan(round.open, choices_);
  ready_.erase(fragment);
  tell(MessageType::kOpen, encode(round.open), round.authority);
}

void Play::end_round(uint32_t fragment) {
  RoundSeen& round = rounds_[fragment];
  if (choices_.one_in(24)) {
    round.is_open = false;
    return tell(MessageType::kAbort, std::make_shared<const std::vector<std::byte>>(),
                round.authority);
  }
  if (choices_.one_in(16)) {
    ++round.authority.attempt;
    Reown reown{.excluded = {choices_.one_in(4) ? PeerId(1) : PeerId(2)}, .moves = {}};
    for (uint32_t chunk = 0; chunk < kFuzzChunks; ++chunk) {
      if (size_t(round.open.owners[chunk]) + 1 == round.open.contributors.size())
        reown.moves.push_back({chunk, 0});
    }
    return tell(MessageType::kReown, encode(reown), round.authority);
  }
  if (!round.done && !choices_.one_in(32)) return next_of_peer();
  round.is_open = false;
  const bool is_right = round.done && !choices_.one_in(16);
  in_force_[fragment] = {.version = round.authority.round,
                         .digest = digest_of(round.authority.round)};
  tell(MessageType::kCommit,
       encode(Commit{.results = is_right ? *round.done : digest_of(0), .step = 5}),
       round.authority);
}

void Play::tell(MessageType type, Bytes payload, Authority authority) {
  authority.term = std::max(authority.term, 1u);
  receive(*coordinator(), type, std::move(payload), authority);
}

// --- Others.

std::vector<LinkId> Play::dialled_peers() const {
  return links(
      [](const auto& link) { return link.dialled.port != 0 && link.dialled != kCoordinator; });
}

void Play::next_of_peer() {
  const std::vector<LinkId> dialled = dialled_peers();
  if (!dialled.empty()) next_of_peer(choices_.pick(dialled));
}

// A peer that was dialled answers, in its order or not.
void Play::next_of_peer(LinkId link) {
  if (!out_.has(link)) return;
  if (!out_.links().at(link).is_open) {
    out_.opened(link);
    return member_->on_link_open(link, false, {}, now_, out_);
  }
  auto& wants = wants_[link];
  if (wants.empty()) return;
  const size_t which = choices_.one_in(4) ? choices_.below(wants.size()) : 0;
  const auto [kind, authority] = wants[which];
  wants.erase(wants.begin() + ptrdiff_t(which));
  if (choices_.one_in(64)) return receive(link, MessageType::kGone, encode(Gone{kind}), authority);
  Bytes payload = answer_to(kind, authority);
  if (choices_.one_in(64)) payload = mangled(payload, choices_);
  receive(link, MessageType::kChunk, std::move(payload), authority);
}

Bytes Play::answer_to(WantKind kind, const Authority& authority) {
  const std::vector<std::byte> encoded = store_.encoded(choices_.below(4));
  const uint64_t version = in_force_[authority.fragment % kFuzzFragments].version;
  switch (kind) {
    case WantKind::kContribution:
    case WantKind::kProof:
      if (choices_.one_in(16)) return frozen(encoded);  // On no path to what was announced.
      return store_.contribution_from(0).payloads[authority.chunk % kFuzzChunks];
    case WantKind::kSubtotal:
    case WantKind::kResult: {
      ResultHeader header{.contributors = 0, .judged_out = 0, .weight_tokens = 0};
      const auto& contributors = rounds_[authority.fragment].open.contributors;
      for (size_t i = 0; i < contributors.size(); ++i) {
        if (i > 0 && choices_.one_in(4)) continue;
        header.contributors |= ContributorMask{1} << i;
        header.weight_tokens += contributors[i].weight_tokens;
      }
      return result_payload(header, encoded, kind);
    }
    case WantKind::kState:
      return state_payload(version - std::min(version, choices_.below(3)), encoded);
    case WantKind::kPast: {
      FragmentStore::PastChunk past{.step = 5, .is_refused = choices_.one_in(4), .result = {}};
      if (!past.is_refused) {
        const Bytes result =
            result_payload({.contributors = 1, .judged_out = 0, .weight_tokens = 100}, encoded);
        past.result = {
            .peer = kNobody, .weight_tokens = 100, .bytes = result, .offset = kResultOffset};
      }
      return past_payload(past);
    }
    case WantKind::kDigests:
      return digests_payload(encoded);
  }
  return frozen(encoded);
}

void Play::arbitrary_message() {
  const auto all = links([](const auto& link) { return link.is_open; });
  if (all.empty()) return;
  const LinkId link = choices_.pick(all);
  const bool is_control = link == coordinator();
  if (is_control && !choices_.one_in(4)) return;  // Hardly any is what it waits for.
  const MessageType type = is_control ? choices_.pick(kFromCoordinator) : choices_.pick(kFromPeers);
  Bytes payload = some_payload(type, choices_);
  if (choices_.one_in(4)) payload = mangled(payload, choices_);
  receive(link, type, payload, some_authority(choices_));
}

// Somebody who has dialled us wants something.
void Play::next_of_guest() {
  const auto guests = links([](const auto& link) { return link.dialled.port == 0; });
  if (guests.empty() || choices_.one_in(16)) return open_link();
  const LinkId link = choices_.pick(guests);
  if (choices_.one_in(8))
    return receive(link, MessageType::kDataHello, encode(DataHello{PeerId(choices_.below(4))}), {});
  const auto kind = WantKind(1 + choices_.below(7));
  const auto fragment = uint32_t(choices_.below(kFuzzFragments));
  Authority authority = rounds_[fragment].authority;
  if (is_for_catching_up(kind)) {
    authority = {.epoch = 1, .round = kind == WantKind::kState ? 0 : in_force_[fragment].version};
  }
  authority.fragment = fragment;
  authority.chunk = uint32_t(choices_.below(kFuzzChunks));
  receive(link, MessageType::kWant, encode(Want{kind}), authority);
}

void Play::open_link() {
  const LinkId link = out_.accept();
  const Remote remote{.endpoint = data_address(PeerId(choices_.below(4))), .node = {}};
  member_->on_link_open(link, true, remote, now_, out_);
  if (out_.has(link) && !choices_.one_in(4))
    receive(link, MessageType::kDataHello, encode(DataHello{PeerId(choices_.below(4))}), {});
}

void Play::lose_link() {
  if (out_.links().empty()) return;
  const LinkId link = choices_.pick(out_.links()).first;
  out_.lost(link);
  wants_.erase(link);
  member_->on_link_closed(link, "lost", now_, out_);
}

void Play::drain_link() {
  if (out_.links().empty()) return;
  const LinkId link = choices_.pick(out_.links()).first;
  if (out_.drain(link)) member_->on_drained(link, now_, out_);
}

std::vector<LinkId> Play::links(
    const std::function<bool(const CheckedOutbox::Link&)>& which) const {
  std::vector<LinkId> found;
  for (const auto& [id, link] : out_.links()) {
    if (which(link)) found.push_back(id);
  }
  return found;
}

void Play::receive(LinkId link, MessageType type, Bytes payload, Authority authority) {
  if (type == MessageType::kCommit && link == coordinator()) {
    if (const auto commit = decode<Commit>(*payload); commit.ok())
      last_commit_[authority.fragment] = commit->results;
  }
  member_->on_message(link,
                      {.type = type,
                       .run = run_hash("run"),
                       .source = kNobody,
                       .authority = authority,
                       .payload = std::move(payload)},
                      now_, out_);
}

// --- The trainer.

void Play::next_of_trainer() {
  if (events_.empty() || choices_.one_in(8)) return say_ready();
  const MemberEvent event = std::move(events_.front());
  events_.pop_front();
  if (std::holds_alternative<CatchUpNeeded>(event)) {
    --unanswered_;
    store_.is_writable = true;
    store_.frozen.clear();
    member_->begin_fetch(now_, out_);
  } else if (const auto* fetched = std::get_if<Fetched>(&event)) {
    --unanswered_;
    if (choices_.one_in(4)) return member_->begin_fetch(now_, out_);
    std::vector<FragmentState> states = fetched->expected;
    for (size_t i = 0; i < states.size(); ++i) {
      store_.version[int64_t(i)] = states[i].version;
      if (states[i].digest.is_zero()) states[i].digest = digest_of(choices_.below(3));
    }
    store_.is_writable = false;
    member_->synced(states, now_, out_);
  } else if (const auto* committed = std::get_if<Committed>(&event)) {
    --unanswered_;
    store_.version[committed->fragment] = committed->round;
    store_.frozen.erase(committed->fragment);
    const uint64_t is_wrong = choices_.one_in(16);
    member_->applied(committed->fragment,
                     {committed->round, digest_of(committed->round + is_wrong)}, now_, out_);
  }
}

void Play::say_ready() {
  if (is_over_) return;
  const auto fragment = int64_t(choices_.below(kFuzzFragments));
  const uint64_t what = choices_.below(32);
  if (what == 31 && choices_.one_in(8)) {
    member_->leave("enough", now_, out_);
    is_over_ = true;
  } else if (what == 30) {
    member_->need_samples(1 + choices_.below(9), now_, out_);
  } else if (what == 29) {
    store_.is_changing = !store_.is_changing;
  } else if (what == 28) {
    store_.left_out = choices_.below(3);
  } else if (what == 27 && store_.frozen.contains(fragment)) {
    member_->ready(fragment, -1, 5, now_, out_);
    store_.frozen.erase(fragment);
  } else {
    store_.frozen.insert(fragment);
    member_->progress(5, 1);
    member_->ready(fragment, int64_t(choices_.below(99)), 5, now_, out_);
  }
}

void Play::on_event(MemberEvent event) {
  CHECK(!is_over_, "something is reported after the end");
  if (const auto* committed = std::get_if<Committed>(&event)) on_committed(*committed);
  if (const auto* fetched = std::get_if<Fetched>(&event)) {
    CHECK(fetched->expected.size() == kFuzzFragments);
    CHECK(store_.is_writable, "the state was fetched and nobody has allowed it");
    for (size_t i = 0; i < fetched->expected.size(); ++i)
      reported_[int64_t(i)] = fetched->expected[i].version;
  }
  if (std::holds_alternative<Started>(event)) {
    const bool is_whole = std::ranges::none_of(events_, [](const MemberEvent& one) {
      return std::holds_alternative<CatchUpNeeded>(one) || std::holds_alternative<Fetched>(one);
    });
    CHECK(is_whole && !store_.is_writable, "started without the state");
  }
  if (std::holds_alternative<Stopped>(event)) is_over_ = true;
  const bool is_to_be_answered = std::holds_alternative<CatchUpNeeded>(event) ||
                                 std::holds_alternative<Fetched>(event) ||
                                 std::holds_alternative<Committed>(event);
  unanswered_ += is_to_be_answered;
  events_.push_back(std::move(event));
}

void Play::on_committed(const Committed& committed) {
  uint64_t& version = reported_[committed.fragment];
  CHECK(committed.round == version + 1, "round {} of fragment {} after {}", committed.round,
        committed.fragment, version);
  version = committed.round;
  CHECK(!store_.is_writable, "a commit while the state is fetched");
  CHECK(int64_t(committed.results.size()) == kFuzzChunks);
  CHECK(committed.result_digest == last_commit_.at(uint32_t(committed.fragment)));
  base::Sha256 hash;
  for (const FragmentStore::Part& part : committed.results) {
    CHECK(store_.check_result(committed.fragment, 0, part.encoded()).ok());
    const base::Digest one = base::sha256(*part.bytes);
    hash.update(std::as_bytes(std::span(one.bytes)));
  }
  CHECK(hash.finish() == committed.result_digest, "other results than were committed");
}

void Play::finish_job() {
  if (out_.job_count() == 0) return;
  const Job job = out_.take_job(choices_.below(out_.job_count()));
  job.work();
  job.done(now_, out_);
}

void Play::pass(Duration time) {
  now_ += time;
  member_->on_tick(now_, out_);
}

void Play::on_sent(LinkId link, const Message& message) {
  CHECK(!is_over_, "message {} after the end", int(message.type));
  const uint32_t fragment = message.authority.fragment;
  switch (message.type) {
    case MessageType::kWant:
      wants_[link].emplace_back(decode<Want>(*message.payload)->kind, message.authority);
      return;
    case MessageType::kSynced:
      is_synced_ = true;
      return;
    case MessageType::kReady: {
      const auto ready = *decode<Ready>(*message.payload);
      if (ready.weight_tokens >= 0) ready_[fragment] = ready;
      return;
    }
    case MessageType::kDone: {
      RoundSeen& round = rounds_[fragment];
      if (round.authority.round == message.authority.round)
        round.done = decode<Done>(*message.payload)->results;
      return;
    }
    default:
      return;
  }
}

}  // namespace

void play_member(Choices& choices) {
  Play(choices).run();
}

}  // namespace net
