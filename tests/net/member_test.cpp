// A member alone: the test plays the coordinator, the other members and the trainer, word by word.
// What a scenario with real members shows better is in cluster_test.cpp.
#include "net/member.h"

#include <algorithm>

#include "net/chunk.h"
#include "net/quiet_log.h"
#include "net/recording_outbox.h"
#include "net/turn.h"

#undef CHECK
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kTerm = 3;

std::vector<std::byte> one_byte(int value) {
  return {std::byte(value)};
}

base::Digest digest_of(uint8_t byte) {
  base::Digest digest;
  digest.bytes[0] = byte;
  return digest;
}

// One fragment, four chunks of one byte, which are summed; eight blocks of one byte.
class TinyStore : public FragmentStore {
 public:
  int64_t fragment_count() const override { return 1; }
  int64_t chunk_count(int64_t) const override { return 4; }
  std::vector<std::byte> encode_contribution(int64_t, int64_t chunk) override {
    return one_byte(10 + int(chunk));
  }
  base::Result<void> check(int64_t, int64_t, std::span<const std::byte> encoded) const override {
    if (encoded.size() != 1) return base::Failure{"not one byte"};
    return {};
  }
  std::vector<std::byte> reduce(int64_t, int64_t, std::span<const Part> parts) override {
    int sum = 0;
    for (const Part& part : parts) sum += int(part.encoded()[0]);
    last_parts.assign(parts.begin(), parts.end());
    return one_byte(sum);
  }
  int64_t block_count(int64_t) const override { return 8; }
  std::optional<StateBlock> read_block(int64_t, int64_t block) override {
    if (is_changing) return std::nullopt;
    return StateBlock{.version = version, .bytes = one_byte(100 + int(block))};
  }
  base::Result<void> write_block(int64_t, int64_t block,
                                 std::span<const std::byte> bytes) override {
    if (bytes.size() != 1) return base::Failure{"not one byte"};
    written[block] = int(bytes[0]);
    return {};
  }

  std::vector<Part> last_parts;
  std::map<int64_t, int> written;
  uint64_t version = 0;
  bool is_changing = false;
};

class Stage {
 public:
  explicit Stage(MemberOptions options = default_options())
      : member(Member::create(options, store, {{0, digest_of(1)}}, 0,
                              [this](MemberEvent event) { events.push_back(std::move(event)); })) {
    quiet_log();
    member->on_start(now, out);
  }

  static MemberOptions default_options() {
    MemberOptions options;
    options.run_name = "run";
    options.node_name = "node";
    options.coordinator = {"meeting.example.org", 4000};
    options.wants_in_flight_max = 2;
    return options;
  }

  // The coordinator.
  void tell(MessageType type, Bytes payload, Authority authority = {}) {
    receive(coordinator(), type, std::move(payload), authority);
  }
  void welcome(PeerId peer = 1) {
    member->on_link_open(coordinator(), false, {}, now, out);
    tell(MessageType::kWelcome,
         encode(Welcome{.peer = peer, .heartbeat_interval_ms = 1000, .dead_after_ms = 5000}),
         {.term = kTerm});
  }
  void start() {
    welcome();
    tell(MessageType::kCatchUp, encode(CatchUp{{{0, digest_of(1)}}, {}}));
    tell(MessageType::kStart, encode(Start{.step = 7}));
  }
  // We are peer 1; chunks 0 and 3 are of peer 0, chunk 1 is ours, chunk 2 of peer 2.
  static Authority round(uint32_t attempt = 1) {
    return {.term = kTerm, .round = 1, .attempt = attempt};
  }
  void open() {
    Open open;
    for (PeerId peer = 0; peer < 3; ++peer) {
      open.contributors.push_back({peer, 100 + int64_t(peer), address(peer)});
    }
    open.owners = {0, 1, 2, 0};
    tell(MessageType::kOpen, encode(open), round());
  }
  LinkId coordinator() const { return links_to(Stage::default_options().coordinator).back(); }

  // Others.
  static Endpoint address(PeerId peer) { return {fmt::format("10.0.0.{}", peer), 4000}; }
  std::vector<LinkId> links_to(const Endpoint& endpoint) const {
    std::vector<LinkId> links;
    for (const auto& [link, dialled] : out.dialled) {
      if (dialled == endpoint) links.push_back(link);
    }
    return links;
  }
  LinkId link_to(PeerId peer) const { return links_to(address(peer)).back(); }
  void receive(LinkId link, MessageType type, Bytes payload, Authority authority = {}) {
    member->on_message(link,
                       {.type = type,
                        .run = run_hash("run"),
                        .source = kNobody,
                        .authority = authority,
                        .payload = std::move(payload)},
                       now, out);
  }
  // What was asked for on the link, and not yet looked at here.
  std::vector<ChunkName> take_wants(LinkId link) {
    std::vector<ChunkName> wants;
    for (const Message& message : out.sent[link]) {
      if (message.type != MessageType::kWant) continue;
      wants.push_back(chunk_name(decode<Want>(*message.payload)->kind, message.authority));
    }
    out.sent[link].clear();
    return wants;
  }
  void give(PeerId from, const ChunkName& name, Bytes payload) {
    receive(link_to(from), MessageType::kChunk, std::move(payload), authority_of(name, 0));
  }
  LinkId guest() {
    const LinkId link = ++last_guest_;
    member->on_link_open(link, true, {"10.0.0.9", 1}, now, out);
    receive(link, MessageType::kDataHello, encode(DataHello{5}));
    return link;
  }
  void want(LinkId link, WantKind kind, Authority authority) {
    receive(link, MessageType::kWant, encode(Want{kind}), authority);
  }

  void pass(Duration time) {
    now += time;
    member->on_tick(now, out);
  }
  template <class T>
  const T* last_event() const {
    return events.empty() ? nullptr : std::get_if<T>(&events.back());
  }

  TinyStore store;
  RecordingOutbox out;
  Instant now = seconds(50);
  std::vector<MemberEvent> events;
  std::unique_ptr<Member> member;

 private:
  LinkId last_guest_ = 0;
};

ChunkName name(WantKind kind, uint32_t chunk, uint32_t attempt = 1) {
  Authority authority = Stage::round(attempt);
  authority.chunk = chunk;
  return chunk_name(kind, authority);
}

Bytes part(int value) {
  return contribution_payload(one_byte(value));
}
Bytes result(ContributorMask mask, int64_t weight, int value) {
  return result_payload({mask, weight}, one_byte(value));
}

// --- The coordinator's link.

TEST_CASE("member: it registers and is heard from") {
  Stage stage;
  stage.welcome();
  const auto hello = stage.out.last<Hello>(stage.coordinator(), MessageType::kHello);
  REQUIRE(hello->protocol == kProtocolVersion);
  REQUIRE(hello->states == std::vector<FragmentState>{{0, digest_of(1)}});
  stage.member->progress(12, 2.5f);
  for (int i = 0; i < 12; ++i) {
    stage.pass(milliseconds(250));
    stage.tell(MessageType::kHeartbeatReply, no_payload());
  }
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kHeartbeat) == 3);
  const auto beat = stage.out.last<Heartbeat>(stage.coordinator(), MessageType::kHeartbeat);
  REQUIRE(beat->step == 12);
  REQUIRE(beat->loss == 2.5f);
}

TEST_CASE("member: a silent coordinator is dialled again") {
  Stage stage;
  stage.welcome();
  const LinkId first = stage.coordinator();
  stage.pass(seconds(4));
  REQUIRE(stage.coordinator() == first);
  stage.pass(seconds(1));
  REQUIRE(stage.out.closed.contains(first));
  stage.pass(milliseconds(250));
  REQUIRE(stage.coordinator() != first);
}

TEST_CASE("member: it dials with growing pauses, and not for ever") {
  Stage stage;
  std::vector<Instant> dials;
  while (stage.events.empty() && stage.now < seconds(500)) {
    if (stage.out.dialled.size() > dials.size()) {
      dials.push_back(stage.now);
      stage.member->on_link_closed(stage.coordinator(), "refused", stage.now, stage.out);
    }
    stage.pass(milliseconds(50));
  }
  const Stopped* const stopped = stage.last_event<Stopped>();
  REQUIRE(stopped != nullptr);
  REQUIRE(stopped->restart_makes_sense);
  REQUIRE(stopped->reason.find("meeting.example.org:4000") != std::string::npos);
  REQUIRE(stopped->reason.find("refused") != std::string::npos);
  REQUIRE(stage.now - seconds(50) >= seconds(60));
  REQUIRE(stage.now - seconds(50) < seconds(61));
  REQUIRE(dials[1] - dials[0] == milliseconds(200));
  REQUIRE(dials[2] - dials[1] == milliseconds(400));
  REQUIRE(dials.back() - dials[dials.size() - 2] == seconds(5));
}

TEST_CASE("member: rejected is rejected") {
  Stage stage;
  stage.member->on_link_open(stage.coordinator(), false, {}, stage.now, stage.out);
  const bool restart_makes_sense = GENERATE(false, true);
  stage.tell(MessageType::kReject, encode(Reject{"no", restart_makes_sense}));
  REQUIRE(stage.last_event<Stopped>()->reason == "no");
  REQUIRE(stage.last_event<Stopped>()->restart_makes_sense == restart_makes_sense);
  const size_t dials = stage.out.dialled.size();
  stage.pass(seconds(100));
  REQUIRE(stage.out.dialled.size() == dials);
  REQUIRE(stage.events.size() == 1);
}

TEST_CASE("member: a coordinator that talks nonsense is left and found again") {
  Stage stage;
  stage.start();
  const LinkId first = stage.coordinator();
  SECTION("a round that does not follow") {
    Open open{.contributors = {{1, 5, Stage::address(1)}}, .owners = {0, 0, 0, 0}, .step = 0};
    stage.tell(MessageType::kOpen, encode(open), {.term = kTerm, .round = 9, .attempt = 1});
  }
  SECTION("a round with another number of chunks") {
    Open open{.contributors = {{1, 5, Stage::address(1)}}, .owners = {0, 0, 0}, .step = 0};
    stage.tell(MessageType::kOpen, encode(open), Stage::round());
  }
  SECTION("a commit of nothing") {
    stage.tell(MessageType::kCommit, encode(Commit{}), Stage::round());
  }
  SECTION("a fragment that does not exist") {
    stage.tell(MessageType::kAbort, no_payload(), {.fragment = 1});
  }
  SECTION("a state of another model") {
    stage.tell(MessageType::kCatchUp, encode(CatchUp{{{}, {}}, {}}));
  }
  SECTION("a move of a chunk that does not exist") {
    stage.member->ready(0, 5, 1, stage.now, stage.out);
    stage.open();
    stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{7, 1}}}),
               Stage::round(2));
  }
  SECTION("a start in the middle of catching up") {
    stage.tell(MessageType::kCatchUp, encode(CatchUp{{{5, digest_of(5)}}, {}}));
    stage.tell(MessageType::kStart, encode(Start{1}));
  }
  SECTION("a message that is none") {
    stage.tell(MessageType::kOpen, no_payload(), Stage::round());
  }
  REQUIRE(stage.out.closed.contains(first));
  stage.pass(seconds(1));
  REQUIRE(stage.coordinator() != first);
  REQUIRE(stage.last_event<Stopped>() == nullptr);
}

TEST_CASE("member: who has the state in force starts without the trainer") {
  Stage stage;
  stage.welcome();
  stage.tell(MessageType::kCatchUp, encode(CatchUp{{{0, digest_of(1)}}, {}}));
  REQUIRE(stage.events.empty());
  REQUIRE(stage.out.last<Synced>(stage.coordinator(), MessageType::kSynced)->states[0].version ==
          0);
  stage.tell(MessageType::kStart, encode(Start{.step = 7}));
  REQUIRE(stage.last_event<Started>()->step == 7);
  REQUIRE(stage.last_event<Started>()->peer == 1);
}

TEST_CASE("member: readiness is told when it can be heard, and again") {
  Stage stage;
  stage.member->ready(0, 55, 9, stage.now, stage.out);
  stage.start();
  REQUIRE(stage.out.last<Ready>(stage.coordinator(), MessageType::kReady)->weight_tokens == 55);
  REQUIRE(stage.out.last(stage.coordinator(), MessageType::kReady)->authority.round == 1);
  stage.member->on_link_closed(stage.coordinator(), "broke", stage.now, stage.out);
  stage.pass(seconds(1));
  stage.start();
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kReady) == 1);
  REQUIRE(stage.out.last(stage.coordinator(), MessageType::kHello)->authority.term == kTerm);
}

// --- Catching up.

class CatchingUp : public Stage {
 public:
  CatchingUp() {
    welcome();
    tell(MessageType::kCatchUp, encode(to_version(6)));
    REQUIRE(last_event<CatchUpNeeded>()->fragments == std::vector<int64_t>{0});
    REQUIRE(links_to(address(0)).empty());  // Not before the trainer allows it.
    member->begin_fetch(now, out);
  }
  static CatchUp to_version(uint64_t version) {
    return {{{version, digest_of(6)}}, {{0, address(0)}, {2, address(2)}}};
  }
  // All that is asked for is answered, until nothing is.
  void serve(uint64_t version) {
    for (bool has_moved = true; has_moved;) {
      has_moved = false;
      for (const PeerId peer : {0u, 2u}) {
        for (const ChunkName& name : take_wants(link_to(peer))) {
          give(peer, name, state_payload(version, one_byte(int(version) * 10 + int(name.chunk))));
          has_moved = true;
        }
      }
    }
  }
};

TEST_CASE("member: blocks come from all donors, a few at a time") {
  CatchingUp stage;
  const auto first = stage.take_wants(stage.link_to(0));
  const auto second = stage.take_wants(stage.link_to(2));
  REQUIRE(first.size() == 2);
  REQUIRE(second.size() == 2);
  REQUIRE(first[0] != second[0]);
  for (const auto& name : first) stage.give(0, name, state_payload(6, one_byte(60)));
  for (const auto& name : second) stage.give(2, name, state_payload(6, one_byte(60)));
  stage.serve(6);
  REQUIRE(stage.store.written.size() == 8);
  REQUIRE(stage.last_event<Fetched>()->expected == std::vector<FragmentState>{{6, digest_of(6)}});
  SECTION("verified") {
    stage.member->synced({{6, digest_of(6)}}, stage.now, stage.out);
    REQUIRE(stage.out.last<Synced>(stage.coordinator(), MessageType::kSynced)->states[0].version ==
            6);
  }
  SECTION("damaged: all of it again") {
    stage.store.written.clear();
    stage.member->begin_fetch(stage.now, stage.out);
    REQUIRE(stage.last_event<Fetched>() != nullptr);
    const size_t event_count = stage.events.size();
    stage.serve(6);
    REQUIRE(stage.store.written.size() == 8);
    REQUIRE(stage.events.size() == event_count + 1);
  }
}

TEST_CASE("member: who is fetching says that it has no state") {
  CatchingUp stage;
  stage.member->on_link_closed(stage.coordinator(), "broke", stage.now, stage.out);
  stage.pass(seconds(1));
  stage.welcome();
  REQUIRE(stage.out.last<Hello>(stage.coordinator(), MessageType::kHello)->states[0].version ==
          kNoVersion);
  const LinkId guest = stage.guest();
  stage.want(guest, WantKind::kState, {});
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
}

TEST_CASE("member: a newer state than the one that is fetched starts it again") {
  CatchingUp stage;
  const auto wants = stage.take_wants(stage.link_to(0));
  stage.give(0, wants[0], state_payload(6, one_byte(1)));
  stage.give(0, wants[1], state_payload(6, one_byte(1)));
  SECTION("by a block that says so") {
    const auto others = stage.take_wants(stage.link_to(2));
    for (const ChunkName& name : others) {
      stage.give(2, name, state_payload(7, one_byte(70 + int(name.chunk))));
    }
  }
  SECTION("by the coordinator") {
    stage.tell(MessageType::kCatchUp, encode(CatchingUp::to_version(7)));
  }
  stage.serve(7);
  stage.pass(seconds(2));
  stage.serve(7);
  REQUIRE(stage.last_event<Fetched>() != nullptr);
  REQUIRE(stage.last_event<Fetched>()->expected[0].version == 7);
  for (const auto& [block, value] : stage.store.written) REQUIRE(value == 70 + block);
}

TEST_CASE("member: a donor that is behind or does not have it is asked again later") {
  CatchingUp stage;
  for (const auto& name : stage.take_wants(stage.link_to(0))) {
    stage.give(0, name, state_payload(5, one_byte(1)));
  }
  for (const auto& name : stage.take_wants(stage.link_to(2))) {
    stage.receive(stage.link_to(2), MessageType::kGone, encode(Gone{WantKind::kState}),
                  authority_of(name, 0));
  }
  REQUIRE(stage.store.written.empty());
  for (int i = 0; i < 5; ++i) {
    stage.pass(seconds(1));
    stage.serve(6);
  }
  REQUIRE(stage.store.written.size() == 8);
  REQUIRE(stage.last_event<Fetched>() != nullptr);
}

TEST_CASE("member: when a donor's link breaks the others give its blocks") {
  CatchingUp stage;
  stage.member->on_link_closed(stage.link_to(0), "broke", stage.now, stage.out);
  for (bool has_moved = true; has_moved;) {
    has_moved = false;
    for (const ChunkName& name : stage.take_wants(stage.link_to(2))) {
      stage.give(2, name, state_payload(6, one_byte(6)));
      has_moved = true;
    }
  }
  REQUIRE(stage.store.written.size() == 8);
}

TEST_CASE("member: a state that nobody gives ends in Stopped") {
  CatchingUp stage;
  for (int i = 0; i < 301 * 4; ++i) {
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    stage.pass(milliseconds(250));
  }
  REQUIRE(stage.last_event<Stopped>() != nullptr);
  REQUIRE(stage.last_event<Stopped>()->restart_makes_sense);
}

// --- Rounds.

class InRound : public Stage {
 public:
  InRound() {
    start();
    member->ready(0, 101, 20, now, out);
    open();
  }
  // Everything arrives; our own chunk is summed from all three.
  void finish() {
    give(0, name(WantKind::kContribution, 1), part(1));
    give(2, name(WantKind::kContribution, 1), part(2));
    for (const uint32_t chunk : {0u, 3u}) {
      give(0, name(WantKind::kResult, chunk), result(0b111, 303, 40 + int(chunk)));
    }
    give(2, name(WantKind::kResult, 2), result(0b101, 202, 42));
  }
  base::Digest results_digest() const {
    base::Sha256 hash;
    hash.update(*result(0b111, 303, 40));
    hash.update(*result(0b111, 303, 1 + 2 + 11));
    hash.update(*result(0b101, 202, 42));
    hash.update(*result(0b111, 303, 43));
    return hash.finish();
  }
};

TEST_CASE("member: it wants its parts and the others' results, and sums in the order of peers") {
  InRound stage;
  const auto from_0 = stage.take_wants(stage.link_to(0));
  const auto from_2 = stage.take_wants(stage.link_to(2));
  REQUIRE(from_0 == std::vector<ChunkName>{name(WantKind::kContribution, 1),
                                           name(WantKind::kResult, 0), name(WantKind::kResult, 3)});
  REQUIRE(from_2 ==
          std::vector<ChunkName>{name(WantKind::kContribution, 1), name(WantKind::kResult, 2)});
  stage.give(2, name(WantKind::kContribution, 1), part(2));  // In the other order.
  REQUIRE(stage.store.last_parts.empty());
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  REQUIRE(stage.store.last_parts.size() == 3);
  for (PeerId peer = 0; peer < 3; ++peer) {
    REQUIRE(stage.store.last_parts[peer].peer == peer);
    REQUIRE(stage.store.last_parts[peer].weight_tokens == 100 + int64_t(peer));
    const int values[] = {1, 11, 2};
    REQUIRE(int(stage.store.last_parts[peer].encoded()[0]) == values[peer]);
  }
}

TEST_CASE("member: nothing is given to the trainer before the commit") {
  InRound stage;
  stage.finish();
  REQUIRE(stage.out.last<Done>(stage.coordinator(), MessageType::kDone)->results ==
          stage.results_digest());
  REQUIRE(stage.last_event<Committed>() == nullptr);
  stage.tell(MessageType::kCommit, encode(Commit{stage.results_digest(), 20}), Stage::round());
  const Committed* const committed = stage.last_event<Committed>();
  REQUIRE(committed->round == 1);
  REQUIRE(committed->step == 20);
  REQUIRE(committed->contributed);
  REQUIRE(committed->members == std::vector<PeerId>{0, 1, 2});
  REQUIRE(committed->weight_tokens == 303);
  REQUIRE(committed->results[2].weight_tokens == 202);
  REQUIRE(int(committed->results[1].encoded()[0]) == 14);
}

TEST_CASE("member: a commit of something else than we hold is refused") {
  InRound stage;
  stage.finish();
  stage.tell(MessageType::kCommit, encode(Commit{digest_of(9), 20}), Stage::round());
  REQUIRE(stage.last_event<Committed>() == nullptr);
  REQUIRE(stage.out.closed.contains(stage.coordinator()));
}

TEST_CASE("member: a wrong result costs its sender the link and is asked for again") {
  InRound stage;
  const LinkId link = stage.link_to(2);
  SECTION("weight") {
    stage.give(2, name(WantKind::kResult, 2), result(0b101, 203, 42));
  }
  SECTION("nobody") {
    stage.give(2, name(WantKind::kResult, 2), result(0, 0, 42));
  }
  SECTION("strangers") {
    stage.give(2, name(WantKind::kResult, 2), result(0b1101, 202, 42));
  }
  SECTION("size") {
    stage.give(2, name(WantKind::kResult, 2), result_payload({0b101, 202}, {}));
  }
  SECTION("no header") {
    const auto bytes = std::vector<std::byte>{std::byte(WantKind::kResult)};
    stage.give(2, name(WantKind::kResult, 2),
               std::make_shared<const std::vector<std::byte>>(bytes));
  }
  SECTION("a part of the wrong size") {
    stage.give(2, name(WantKind::kContribution, 1), contribution_payload({}));
  }
  REQUIRE(stage.out.closed.contains(link));
  stage.pass(seconds(2));
  REQUIRE(stage.link_to(2) != link);
  REQUIRE(stage.take_wants(stage.link_to(2)).size() == 2);
  stage.finish();
  REQUIRE(stage.out.last<Done>(stage.coordinator(), MessageType::kDone)->results ==
          stage.results_digest());
}

TEST_CASE("member: a Reown makes old results void and goes on without the missing") {
  InRound stage;
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  stage.give(0, name(WantKind::kResult, 0), result(0b111, 303, 99));
  stage.give(2, name(WantKind::kResult, 2), result(0b101, 202, 42));
  REQUIRE(stage.store.last_parts.empty());  // Peer 0's part is missing.
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{0, 1}, {3, 2}}}),
             Stage::round(2));
  // Chunk 1 was summed without peer 0; chunk 0 is ours now, chunk 3 is peer 2's.
  REQUIRE(stage.store.last_parts.size() == 2);
  REQUIRE(stage.store.last_parts[0].peer == 1);
  // What peer 0 still says of the first attempt is not heard.
  stage.receive(stage.link_to(0), MessageType::kChunk, result(0b111, 303, 77),
                authority_of(name(WantKind::kResult, 3), 0));
  stage.give(2, name(WantKind::kContribution, 0, 2), part(5));
  stage.give(2, name(WantKind::kResult, 3, 2), result(0b110, 203, 43));
  const Message* const done = stage.out.last(stage.coordinator(), MessageType::kDone);
  REQUIRE(done->authority.attempt == 2);
  base::Sha256 hash;
  hash.update(*result(0b110, 203, 10 + 5));
  hash.update(*result(0b110, 203, 11 + 2));
  hash.update(*result(0b101, 202, 42));
  hash.update(*result(0b110, 203, 43));
  REQUIRE(decode<Done>(*done->payload)->results == hash.finish());
}

TEST_CASE("member: Done is said again for a new attempt, with what is new") {
  InRound stage;
  stage.finish();
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 1);
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {2}, .moves = {{2, 0}}}),
             Stage::round(2));
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 1);
  stage.give(0, name(WantKind::kResult, 2, 2), result(0b011, 201, 50));
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 2);
  const auto done = stage.out.last<Done>(stage.coordinator(), MessageType::kDone);
  REQUIRE(done->results != stage.results_digest());
}

TEST_CASE("member: who is excluded leaves the round") {
  InRound stage;
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {1}, .moves = {}}), Stage::round(2));
  const LinkId guest = stage.guest();
  Authority asked = Stage::round();
  stage.want(guest, WantKind::kContribution, asked);
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
  stage.take_wants(stage.link_to(0));
  stage.pass(seconds(3));
  REQUIRE(stage.take_wants(stage.link_to(0)).empty());
}

TEST_CASE("member: rounds end with the coordinator's link") {
  InRound stage;
  stage.finish();
  const LinkId guest = stage.guest();
  stage.member->on_link_closed(stage.coordinator(), "broke", stage.now, stage.out);
  REQUIRE(stage.out.closed.contains(stage.link_to(0)));
  stage.want(guest, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
}

TEST_CASE("member: who withdraws leaves the round, even if it is opened afterwards") {
  Stage stage;
  stage.start();
  stage.member->ready(0, 101, 20, stage.now, stage.out);
  const bool is_open_before = GENERATE(true, false);
  if (is_open_before) stage.open();
  stage.member->ready(0, -1, 20, stage.now, stage.out);
  REQUIRE(stage.out.last<Ready>(stage.coordinator(), MessageType::kReady)->weight_tokens == -1);
  if (!is_open_before) stage.open();
  const LinkId guest = stage.guest();
  stage.want(guest, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
  REQUIRE(!stage.out.closed.contains(stage.coordinator()));
}

TEST_CASE("member: a ready that crosses the commit is void") {
  InRound stage;
  stage.finish();
  stage.tell(MessageType::kCommit, encode(Commit{stage.results_digest(), 20}), Stage::round());
  const int64_t told = stage.out.count(stage.coordinator(), MessageType::kReady);
  stage.member->ready(0, 101, 20, stage.now, stage.out);
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kReady) == told);
  stage.member->applied(0, {1, digest_of(8)}, stage.now, stage.out);
  REQUIRE(stage.out.last<Applied>(stage.coordinator(), MessageType::kApplied)->digest ==
          digest_of(8));
  stage.member->ready(0, 101, 25, stage.now, stage.out);
  REQUIRE(stage.out.last(stage.coordinator(), MessageType::kReady)->authority.round == 2);
}

TEST_CASE("member: catching up waits for a commit that is being applied") {
  InRound stage;
  stage.finish();
  stage.tell(MessageType::kCommit, encode(Commit{stage.results_digest(), 20}), Stage::round());
  const size_t event_count = stage.events.size();
  stage.tell(MessageType::kCatchUp, encode(CatchUp{{{1, digest_of(8)}}, {}}));
  REQUIRE(stage.events.size() == event_count);
  SECTION("it is the right one") {
    stage.member->applied(0, {1, digest_of(8)}, stage.now, stage.out);
    REQUIRE(stage.events.size() == event_count);
    REQUIRE(stage.out.last(stage.coordinator(), MessageType::kSynced) != nullptr);
  }
  SECTION("it is not") {
    stage.member->applied(0, {1, digest_of(9)}, stage.now, stage.out);
    REQUIRE(stage.last_event<CatchUpNeeded>() != nullptr);
  }
}

TEST_CASE("member: heartbeats name those who owe, contributions before results") {
  InRound stage;
  const auto waiting_for = [&] {
    stage.pass(seconds(1));
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    return stage.out.last<Heartbeat>(stage.coordinator(), MessageType::kHeartbeat)->waiting_for;
  };
  REQUIRE(waiting_for() == 0b101);
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  REQUIRE(waiting_for() == 0b001);  // Peer 2 still owes a result, but has just sent something,
  REQUIRE(waiting_for() == 0b001);  // and may itself be waiting for peer 0.
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  REQUIRE(waiting_for() == 0b100);
  REQUIRE(waiting_for() == 0b101);
}

// --- Serving.

TEST_CASE("member: it gives its parts at once and results when they are there") {
  InRound stage;
  const LinkId guest = stage.guest();
  Authority chunk_1 = Stage::round();
  chunk_1.chunk = 1;
  stage.want(guest, WantKind::kResult, chunk_1);
  Authority chunk_3 = Stage::round();
  chunk_3.chunk = 3;
  stage.want(guest, WantKind::kContribution, chunk_3);
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 1);
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *part(13));
  stage.finish();
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 2);
  REQUIRE(stage.out.last(guest, MessageType::kChunk)->authority.chunk == 1);
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *result(0b111, 303, 14));
}

TEST_CASE("member: a want that comes before its round waits for it") {
  Stage stage;
  stage.start();
  const LinkId guest = stage.guest();
  stage.want(guest, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.sent[guest].empty());
  stage.member->ready(0, 101, 20, stage.now, stage.out);
  stage.open();
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 1);
}

TEST_CASE("member: a want of an attempt that we do not know yet waits for it") {
  InRound stage;
  stage.finish();
  const LinkId guest = stage.guest();
  Authority asked = Stage::round(2);
  asked.chunk = 1;
  stage.want(guest, WantKind::kResult, asked);  // Ours, but of the first attempt.
  stage.want(guest, WantKind::kContribution, asked);
  REQUIRE(stage.out.sent[guest].empty());
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{1, 1}}}),
             Stage::round(2));
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *part(11));
  stage.give(2, name(WantKind::kContribution, 1, 2), part(2));
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 2);
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *result(0b110, 203, 13));
}

TEST_CASE("member: wants that make no sense are gone") {
  InRound stage;
  const LinkId guest = stage.guest();
  Authority asked = Stage::round();
  SECTION("no such chunk") {
    asked.chunk = 4;
  }
  SECTION("no such fragment") {
    asked.fragment = 1;
  }
  SECTION("an older term") {
    asked.term = kTerm - 1;
  }
  SECTION("an older round") {
    asked.round = 0;
  }
  SECTION("an older attempt") {
    asked.attempt = 0;
  }
  stage.want(guest, WantKind::kContribution, asked);
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
  REQUIRE(stage.out.last(guest, MessageType::kGone)->authority == asked);
}

TEST_CASE("member: a want that cannot be answered in time is gone") {
  InRound stage;
  const LinkId guest = stage.guest();
  Authority later = Stage::round();
  later.round = 2;
  stage.want(guest, WantKind::kResult, later);
  for (int i = 0; i < 29; ++i) {
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    stage.pass(seconds(1));
  }
  REQUIRE(stage.out.sent[guest].empty());
  stage.pass(seconds(2));
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
}

TEST_CASE("member: chunks are made when the link has room for them") {
  InRound stage;
  const LinkId guest = stage.guest();
  stage.out.queued = kQueuedBytesMax + 1;
  stage.want(guest, WantKind::kContribution, Stage::round());
  REQUIRE(stage.out.sent[guest].empty());
  stage.out.queued = kQueuedBytesMax / 2;
  stage.member->on_drained(guest, stage.now, stage.out);
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 1);
}

TEST_CASE("member: a state that is being changed is given when it is whole again") {
  Stage stage;
  stage.start();
  stage.store.is_changing = true;
  const LinkId guest = stage.guest();
  stage.want(guest, WantKind::kState, {.chunk = 3});
  REQUIRE(stage.out.sent[guest].empty());
  stage.store.is_changing = false;
  stage.pass(milliseconds(250));
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *state_payload(0, one_byte(103)));
}

TEST_CASE("member: guests that misbehave are shown out") {
  Stage stage;
  stage.start();
  SECTION("without a greeting") {
    stage.member->on_link_open(77, true, {}, stage.now, stage.out);
    stage.want(77, WantKind::kState, {});
    REQUIRE(stage.out.closed.contains(77));
  }
  SECTION("of another run") {
    stage.member->on_link_open(77, true, {}, stage.now, stage.out);
    stage.member->on_message(
        77, {.type = MessageType::kDataHello, .run = 5, .payload = encode(DataHello{1})}, stage.now,
        stage.out);
    REQUIRE(stage.out.closed.contains(77));
  }
  SECTION("with chunks that nobody wanted") {
    const LinkId guest = stage.guest();
    stage.receive(guest, MessageType::kChunk, part(1), Stage::round());
    REQUIRE(stage.out.closed.contains(guest));
  }
  SECTION("with too many wants") {
    const LinkId guest = stage.guest();
    Authority later = Stage::round();
    later.round = 2;
    for (int i = 0; i < 5000; ++i) {
      if (!stage.out.closed.contains(guest)) stage.want(guest, WantKind::kResult, later);
    }
    REQUIRE(stage.out.closed.contains(guest));
  }
}

TEST_CASE("member: it leaves with a word and is quiet then") {
  InRound stage;
  const LinkId coordinator = stage.coordinator();
  stage.member->leave(kDoneReason, stage.now, stage.out);
  REQUIRE(stage.out.last<Leave>(coordinator, MessageType::kLeave)->reason == "done");
  REQUIRE(stage.out.closed.contains(coordinator));
  REQUIRE(stage.out.closed.contains(stage.link_to(0)));
  const size_t dials = stage.out.dialled.size();
  stage.pass(seconds(100));
  stage.receive(coordinator, MessageType::kAbort, no_payload(), Stage::round());
  REQUIRE(stage.out.dialled.size() == dials);
  REQUIRE(stage.last_event<Stopped>() == nullptr);
}

}  // namespace
}  // namespace net
