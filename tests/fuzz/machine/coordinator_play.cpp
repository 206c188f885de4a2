#include "fuzz/machine/coordinator_play.h"

#include <set>

#include "base/error.h"
#include "fuzz/machine/checked_outbox.h"
#include "fuzz/machine/messages.h"
#include "fuzz/machine/told_by_coordinator.h"
#include "net/coordinator.h"
#include "net/turn.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr MessageType kFromMembers[] = {
    MessageType::kHello,   MessageType::kSynced,      MessageType::kHeartbeat,
    MessageType::kReady,   MessageType::kDone,        MessageType::kApplied,
    MessageType::kLeave,   MessageType::kNeedSamples, MessageType::kDialBackReply,
    MessageType::kWelcome, MessageType::kWant,        MessageType::kChunk};
// A dial to each member's port, and those to members that have just left.
constexpr int64_t kDialledMax = 4 * kMembersMax;

CoordinatorOptions some_options(Choices& choices) {
  CoordinatorOptions options;
  options.run_name = "run";
  options.config = digest_of(0);
  options.fragment_count = kFuzzFragments;
  options.chunk_counts.assign(kFuzzFragments, kFuzzChunks);
  options.start_members = 1 + int64_t(choices.below(3));
  options.members_min = 1 + int64_t(choices.below(2));
  options.inner_steps = choices.below(2) * 5;
  options.tokens_per_step = int64_t(choices.below(2)) * 10;
  options.adopt_newer = choices.one_in(2);
  options.term = 1 + uint32_t(choices.below(3));
  if (choices.one_in(2)) {
    options.start_grace = options.ready_grace = seconds(4);
    options.round_timeout = seconds(9);
    options.stall_after = options.dead_after = seconds(3);
  }
  return options;
}

class Play {
 public:
  explicit Play(Choices& choices)
      : choices_(choices), coordinator_(Coordinator::create(some_options(choices))) {
    out_.on_send = [this](LinkId link, const Message& message) { on_sent(link, message); };
    coordinator_->on_start(now_, out_);
  }

  void run() {
    while (!choices_.is_over()) {
      act();
      check();
    }
  }

 private:
  void act();
  void all_act();
  void answer_next(LinkId link);
  void greet(LinkId link);
  void answer_dial(LinkId link);
  void open_link();
  void lose_link();
  void all_alive();
  void say(LinkId link, MessageType type, Bytes payload, Authority authority = {});
  void pass(Duration time);
  void on_sent(LinkId link, const Message& message);
  void check() const;
  std::vector<LinkId> links(bool are_dialled) const;

  Choices& choices_;
  CheckedOutbox out_{kDialledMax, 0};
  ToldByCoordinator told_;
  std::unique_ptr<Coordinator> coordinator_;
  std::map<LinkId, uint64_t> keys_;    // What each incoming link's node called itself.
  std::map<LinkId, uint64_t> nonces_;  // Asked on a dialled link, and not answered.
  Instant now_ = seconds(100);
};

void Play::act() {
  const std::vector<LinkId> members = links(false);
  const std::vector<LinkId> dials = links(true);
  switch (choices_.below(16)) {
    case 15:
      return open_link();
    case 14:
      return lose_link();
    case 13:
      return pass(choices_.one_in(8) ? Duration(minutes(20)) : seconds(choices_.below(20)));
    case 12:
      return pass(milliseconds(50 * choices_.below(20)));
    case 11:
      return all_alive();
    case 10: {
      if (members.empty()) return open_link();
      const LinkId link = choices_.pick(members);
      const MessageType type = choices_.pick(kFromMembers);
      Bytes payload = some_payload(type, choices_);
      if (choices_.one_in(4)) payload = mangled(payload, choices_);
      return say(link, type, payload, some_authority(choices_));
    }
    case 9:
      for (const LinkId link : dials) answer_dial(link);
      return;
    case 5:
    case 6:
    case 7:
    case 8:
      if (members.empty()) return open_link();
      return answer_next(choices_.pick(members));
    default:
      return all_act();
  }
}

// Everybody does what is next. With nothing else rounds are made and committed.
void Play::all_act() {
  if (links(false).size() < 3) open_link();
  for (const LinkId link : links(true)) answer_dial(link);
  for (const LinkId link : links(false)) answer_next(link);
  pass(milliseconds(100));
}

// What a member that means well says next.
void Play::answer_next(LinkId id) {
  if (!out_.has(id)) return;
  if (!keys_.contains(id)) return greet(id);
  ToldByCoordinator::Link& link = told_.link(id);
  if (link.catch_up) {
    const std::vector<FragmentState> states = link.catch_up->states;
    link.catch_up.reset();
    for (uint32_t fragment = 0; fragment < states.size(); ++fragment)
      link.versions[fragment] = states[fragment].version;
    return say(id, MessageType::kSynced, encode(Synced{states}));
  }
  if (!link.is_active) return say(id, MessageType::kHeartbeat, encode(Heartbeat{}));
  if (!link.committed.empty()) {
    const Authority authority = link.committed.begin()->second;
    link.committed.erase(link.committed.begin());
    const uint64_t is_wrong = choices_.one_in(16);
    return say(id, MessageType::kApplied, encode(Applied{digest_of(authority.round + is_wrong)}),
               authority);
  }
  const auto fragment = uint32_t(choices_.below(kFuzzFragments));
  if (const auto open = link.open.find(fragment); open != link.open.end()) {
    const uint64_t is_wrong = choices_.one_in(8);
    return say(id, MessageType::kDone, encode(Done{digest_of(open->second.round + is_wrong)}),
               open->second);
  }
  const uint64_t round = link.versions[fragment] + 1;
  say(id, MessageType::kReady,
      encode(Ready{.weight_tokens = int64_t(choices_.below(100)), .step = 5 * round}),
      {.round = round, .fragment = fragment});
}

void Play::greet(LinkId link) {
  const uint64_t key = (keys_.size() + choices_.below(8)) % 8;
  keys_[link] = key;
  Hello hello{.protocol = kProtocolVersion, .node_key = key};
  hello.node_name = fmt::format("node-{}", key);
  hello.config = digest_of(0);
  hello.listen = data_address(PeerId(key));
  const uint64_t version = choices_.one_in(4) ? choices_.below(6) : 0;
  hello.step = 5 * version;
  hello.states.assign(kFuzzFragments, {.version = version, .digest = digest_of(version)});
  say(link, MessageType::kHello, encode(hello));
}

// The data port of whoever called himself by a key lies at an address that tells it.
void Play::answer_dial(LinkId link) {
  if (!out_.has(link)) return;
  if (!out_.links().at(link).is_open) {
    if (choices_.one_in(8)) {
      out_.lost(link);
      return coordinator_->on_link_closed(link, "refused", now_, out_);
    }
    out_.opened(link);
    return coordinator_->on_link_open(link, false, {}, now_, out_);
  }
  const auto nonce = nonces_.find(link);
  if (nonce == nonces_.end()) return;
  uint64_t key = choices_.one_in(8) ? 99 : 0;
  for (uint64_t one = 0; one < 12; ++one) {
    if (out_.links().at(link).dialled == data_address(PeerId(one))) key += one;
  }
  const uint64_t proof = dial_back_proof(key, nonce->second);
  nonces_.erase(nonce);
  say(link, MessageType::kDialBackReply, encode(DialBackReply{proof}));
}

void Play::open_link() {
  const LinkId link = out_.accept();
  const Remote remote{.endpoint = {fmt::format("10.1.1.{}", choices_.below(4)), 5000}, .node = {}};
  coordinator_->on_link_open(link, true, remote, now_, out_);
}

void Play::lose_link() {
  if (out_.links().empty()) return;
  const LinkId link = choices_.pick(out_.links()).first;
  out_.lost(link);
  coordinator_->on_link_closed(link, "lost", now_, out_);
}

void Play::all_alive() {
  for (const LinkId link : links(false)) {
    if (keys_.contains(link) && out_.has(link))
      say(link, MessageType::kHeartbeat, encode(Heartbeat{.progress = choices_.below(3)}));
  }
  pass(seconds(1));
}

void Play::say(LinkId link, MessageType type, Bytes payload, Authority authority) {
  if (out_.drain(link)) coordinator_->on_drained(link, now_, out_);
  coordinator_->on_message(link,
                           {.type = type,
                            .run = run_hash("run"),
                            .source = kNobody,
                            .authority = authority,
                            .payload = std::move(payload)},
                           now_, out_);
}

void Play::pass(Duration time) {
  now_ += time;
  coordinator_->on_tick(now_, out_);
}

void Play::on_sent(LinkId link, const Message& message) {
  if (message.type == MessageType::kDialBack)
    nonces_[link] = decode<DialBack>(*message.payload)->nonce;
  told_.hear(link, message);
}

void Play::check() const {
  const CoordinatorReport report = coordinator_->report();
  CHECK(int64_t(report.members.size()) <= kMembersMax);
  std::set<PeerId> peers;
  for (const auto& member : report.members) CHECK(peers.insert(member.peer).second);
  CHECK(report.members.size() <= links(false).size(), "members without a link");
  for (const LinkId link : links(false)) CHECK(!told_.is_rejected(link), "a link of one rejected");
}

std::vector<LinkId> Play::links(bool are_dialled) const {
  std::vector<LinkId> links;
  for (const auto& [id, link] : out_.links()) {
    if ((link.dialled.port != 0) == are_dialled) links.push_back(id);
  }
  return links;
}

}  // namespace

void play_coordinator(Choices& choices) {
  Play(choices).run();
}

}  // namespace net
