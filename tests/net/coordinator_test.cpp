// The coordinator alone: the test plays all members, word by word, with a clock of its own. What a
// scenario with real members shows better is in cluster_test.cpp.
#include "net/coordinator.h"

#include <algorithm>

#include "net/quiet_log.h"
#include "net/recording_outbox.h"
#include "net/turn.h"

#undef CHECK
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

base::Digest digest_of(uint8_t byte) {
  base::Digest digest;
  digest.bytes[0] = byte;
  return digest;
}

CoordinatorOptions small_options() {
  CoordinatorOptions options;
  options.run_name = "run";
  options.config = digest_of(42);
  options.chunk_counts = {4};
  options.start_members = 2;
  options.heartbeat_interval = seconds(1);
  return options;
}

// A coordinator and the members that the test plays: a link each.
class Desk {
 public:
  explicit Desk(const CoordinatorOptions& options = small_options())
      : coordinator(Coordinator::create(options)), options_(options) {
    quiet_log();
  }

  Hello hello(uint64_t node_key, uint64_t version = 0, uint8_t digest = 1) const {
    Hello hello;
    hello.protocol = kProtocolVersion;
    hello.node_key = node_key;
    hello.node_name = fmt::format("node-{}", node_key);
    hello.config = options_.config;
    hello.listen = {"", 4000};
    hello.states.assign(size_t(options_.fragment_count), {version, digest_of(digest)});
    return hello;
  }
  LinkId connect() {
    coordinator->on_link_open(++last_link_, true, {"10.1.1.1", 5555}, now, out);
    return last_link_;
  }
  void send(LinkId link, MessageType type, Bytes payload, Authority authority = {}) {
    coordinator->on_message(link,
                            {.type = type,
                             .run = run_hash(options_.run_name),
                             .source = kNobody,
                             .authority = authority,
                             .payload = std::move(payload)},
                            now, out);
  }
  LinkId join(const Hello& hello, uint32_t term = 0) {
    const LinkId link = connect();
    send(link, MessageType::kHello, encode(hello), {.term = term});
    return link;
  }
  void sync(LinkId link) {
    const auto catch_up = out.last<CatchUp>(link, MessageType::kCatchUp);
    REQUIRE(catch_up);
    send(link, MessageType::kSynced, encode(Synced{catch_up->states}));
  }
  LinkId join_active(uint64_t node_key) {
    const LinkId link = join(hello(node_key));
    if (out.last(link, MessageType::kCatchUp)) sync(link);
    return link;
  }
  void ready(LinkId link, int64_t weight, uint64_t round = 1, uint64_t step = 10) {
    send(link, MessageType::kReady, encode(Ready{weight, step}), {.round = round});
  }
  void done(LinkId link, uint8_t digest) {
    const Message* const open = out.last(link, MessageType::kOpen);
    const Message* const reown = out.last(link, MessageType::kReown);
    Authority authority = open->authority;
    if (reown != nullptr && reown->authority.round == authority.round) authority = reown->authority;
    send(link, MessageType::kDone, encode(Done{digest_of(digest)}), authority);
  }
  void heartbeat(LinkId link, uint64_t progress = 0, uint64_t waiting_for = 0) {
    send(link, MessageType::kHeartbeat,
         encode(Heartbeat{.step = 1, .progress = progress, .waiting_for = waiting_for}));
  }
  void pass(Duration time) {
    now += time;
    coordinator->on_tick(now, out);
  }
  // Time in which all of them are heard.
  void pass_alive(Duration time, const std::vector<LinkId>& links) {
    for (Duration passed{}; passed < time; passed += seconds(1)) {
      for (const LinkId link : links) heartbeat(link);
      pass(seconds(1));
    }
  }
  std::string reject_reason(LinkId link) const {
    const auto reject = out.last<Reject>(link, MessageType::kReject);
    return reject ? reject->reason : "";
  }
  bool is_told(LinkId link, MessageType type) const { return out.last(link, type) != nullptr; }

  std::unique_ptr<Coordinator> coordinator;
  RecordingOutbox out;
  Instant now = seconds(100);

 private:
  CoordinatorOptions options_;
  LinkId last_link_ = 0;
};

// --- Admission.

TEST_CASE("coordinator: strangers are rejected with a reason that helps") {
  Desk desk;
  SECTION("another run") {
    const LinkId link = desk.connect();
    desk.coordinator->on_message(
        link, {.type = MessageType::kHello, .run = 1, .payload = encode(desk.hello(1))}, desk.now,
        desk.out);
    REQUIRE(desk.reject_reason(link).find("run 'run'") != std::string::npos);
    REQUIRE(desk.out.closed.contains(link));
  }
  SECTION("another configuration") {
    Hello hello = desk.hello(1);
    hello.config = digest_of(43);
    const LinkId link = desk.join(hello);
    REQUIRE(desk.reject_reason(link).find("configuration") != std::string::npos);
    REQUIRE(desk.out.closed.contains(link));
  }
  SECTION("another version, whose Hello looks different") {
    const LinkId link = desk.connect();
    const std::vector<std::byte> bytes = {std::byte(77), std::byte(0), std::byte(0), std::byte(0)};
    desk.send(link, MessageType::kHello, std::make_shared<const std::vector<std::byte>>(bytes));
    REQUIRE(desk.reject_reason(link).find("version 77") != std::string::npos);
  }
  SECTION("no Hello at all") {
    const LinkId link = desk.connect();
    desk.send(link, MessageType::kHeartbeat, encode(Heartbeat{}));
    REQUIRE(desk.reject_reason(link).find("Hello") != std::string::npos);
  }
  SECTION("another number of fragments") {
    Hello hello = desk.hello(1);
    hello.states.resize(3);
    REQUIRE(desk.reject_reason(desk.join(hello)).find("3 fragments") != std::string::npos);
  }
  SECTION("one too many") {
    for (int64_t i = 0; i < kMembersMax; ++i) {
      REQUIRE(desk.is_told(desk.join(desk.hello(100 + uint64_t(i))), MessageType::kWelcome));
    }
    REQUIRE(desk.reject_reason(desk.join(desk.hello(1))).find("full") != std::string::npos);
    // One of them that comes again is not one too many.
    REQUIRE(desk.is_told(desk.join(desk.hello(100)), MessageType::kWelcome));
  }
}

TEST_CASE("coordinator: who says nothing is not kept") {
  Desk desk;
  const LinkId link = desk.connect();
  desk.pass(seconds(9));
  REQUIRE(!desk.out.closed.contains(link));
  desk.pass(seconds(2));
  REQUIRE(desk.out.closed.contains(link));
}

TEST_CASE("coordinator: a node that registers again replaces itself") {
  Desk desk;
  const LinkId old = desk.join(desk.hello(1));
  const LinkId again = desk.join(desk.hello(1));
  REQUIRE(desk.out.closed.contains(old));
  REQUIRE(!desk.is_told(again, MessageType::kCatchUp));  // One node is not two members.
  REQUIRE(desk.coordinator->report().members.size() == 1);
  const auto first = desk.out.last<Welcome>(old, MessageType::kWelcome);
  const auto second = desk.out.last<Welcome>(again, MessageType::kWelcome);
  REQUIRE(first->peer == second->peer);
}

TEST_CASE("coordinator: a number that stands in an open round belongs to nobody else") {
  Desk desk;
  const LinkId a = desk.join(desk.hello(1));
  const LinkId b = desk.join(desk.hello(2));
  for (const LinkId link : {a, b}) desk.sync(link);
  for (const LinkId link : {a, b}) desk.ready(link, 10);
  desk.coordinator->on_link_closed(b, "gone", desk.now, desk.out);
  const LinkId again = desk.join(desk.hello(2));
  REQUIRE(desk.out.last<Welcome>(again, MessageType::kWelcome)->peer == 2);
  // It receives the result of the round in which it was somebody else.
  desk.sync(again);
  REQUIRE(desk.out.last<Reown>(again, MessageType::kReown)->excluded == std::vector<PeerId>{1});
  desk.done(a, 5);
  desk.done(again, 5);
  REQUIRE(desk.is_told(again, MessageType::kCommit));
}

TEST_CASE("coordinator: a node is reached where it says, or where it came from") {
  Desk desk;
  desk.join(desk.hello(1, 5));
  Hello hello = desk.hello(2, 5);
  hello.listen = {"node.example.org", 777};
  desk.join(hello);
  const LinkId third = desk.join(desk.hello(3, 0));
  const auto donors = desk.out.last<CatchUp>(third, MessageType::kCatchUp)->donors;
  REQUIRE(donors.size() == 2);
  REQUIRE(donors[0].data == Endpoint{"10.1.1.1", 4000});
  REQUIRE(donors[1].data == Endpoint{"node.example.org", 777});
}

// --- The start.

TEST_CASE("coordinator: the run starts with enough members, or with fewer after some grace") {
  Desk desk;
  const LinkId first = desk.join(desk.hello(1));
  desk.pass(seconds(1));
  REQUIRE(!desk.is_told(first, MessageType::kCatchUp));
  SECTION("enough") {
    const LinkId second = desk.join(desk.hello(2));
    REQUIRE(desk.is_told(first, MessageType::kCatchUp));
    REQUIRE(desk.is_told(second, MessageType::kCatchUp));
  }
  SECTION("grace") {
    desk.pass_alive(seconds(118), {first});
    REQUIRE(!desk.is_told(first, MessageType::kCatchUp));
    desk.pass_alive(seconds(3), {first});
    REQUIRE(desk.is_told(first, MessageType::kCatchUp));
  }
}

TEST_CASE("coordinator: the newest state is in force, and of equal ones the majority's") {
  CoordinatorOptions options = small_options();
  options.start_members = 5;
  Desk desk(options);
  desk.join(desk.hello(1, 7, 1));
  desk.join(desk.hello(2, 9, 2));
  desk.join(desk.hello(3, 9, 3));
  desk.join(desk.hello(4, 9, 3));
  Hello ahead = desk.hello(5, 0, 4);  // Far, but from nothing.
  ahead.step = 100000;
  const LinkId fresh = desk.join(ahead);
  const auto catch_up = desk.out.last<CatchUp>(fresh, MessageType::kCatchUp);
  REQUIRE(catch_up->states == std::vector<FragmentState>{{9, digest_of(3)}});
  REQUIRE(catch_up->donors.size() == 2);
  desk.sync(fresh);
  REQUIRE(desk.out.last<Start>(fresh, MessageType::kStart)->step == 0);
}

TEST_CASE("coordinator: a joiner starts at the step of the run") {
  CoordinatorOptions options = small_options();
  options.start_members = 1;
  Desk desk(options);
  Hello resumed = desk.hello(1, 4);
  resumed.step = 400;
  const LinkId first = desk.join(resumed);
  desk.sync(first);
  REQUIRE(desk.out.last<Start>(first, MessageType::kStart)->step == 400);
  desk.send(first, MessageType::kHeartbeat, encode(Heartbeat{.step = 433}));
  const LinkId second = desk.join(desk.hello(2));
  desk.sync(second);
  REQUIRE(desk.out.last<Start>(second, MessageType::kStart)->step == 433);
  REQUIRE(desk.out.last<Membership>(first, MessageType::kMembership)->members.size() == 2);
}

TEST_CASE("coordinator: terms rise above those that members knew") {
  Desk desk;
  const LinkId link = desk.join(desk.hello(1), 17);
  REQUIRE(desk.out.last(link, MessageType::kWelcome)->authority.term == 18);
}

// --- Rounds.

struct Pair {
  Desk desk;
  LinkId a, b;
  explicit Pair(const CoordinatorOptions& options = small_options()) : desk(options) {
    a = desk.join(desk.hello(1));
    b = desk.join(desk.hello(2));
    desk.sync(a);
    desk.sync(b);
  }
};

TEST_CASE("coordinator: a round opens when all are ready, or some grace after enough are") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.ready(pair.a, 100);
  REQUIRE(!desk.is_told(pair.a, MessageType::kOpen));
  SECTION("all") {
    desk.ready(pair.b, 50);
    const auto open = desk.out.last<Open>(pair.b, MessageType::kOpen);
    REQUIRE(open->contributors.size() == 2);
    REQUIRE(open->contributors[0].weight_tokens == 100);
    REQUIRE(open->owners == std::vector<uint8_t>{0, 1, 0, 1});
    REQUIRE(desk.out.last(pair.a, MessageType::kOpen)->authority.round == 1);
  }
  SECTION("grace: the late one receives, and does not contribute") {
    desk.pass_alive(seconds(29), {pair.a, pair.b});
    REQUIRE(!desk.is_told(pair.a, MessageType::kOpen));
    desk.pass_alive(seconds(2), {pair.a, pair.b});
    REQUIRE(desk.out.last<Open>(pair.a, MessageType::kOpen)->contributors.size() == 1);
    REQUIRE(desk.is_told(pair.b, MessageType::kOpen));
  }
  SECTION("withdrawn") {
    desk.ready(pair.a, -1);
    desk.ready(pair.b, 50);
    REQUIRE(!desk.is_told(pair.b, MessageType::kOpen));
  }
  SECTION("for a round that is over") {
    desk.ready(pair.b, 50, 7);
    REQUIRE(!desk.is_told(pair.b, MessageType::kOpen));
  }
  SECTION("without tokens") {
    desk.ready(pair.b, 0);
    const auto open = desk.out.last<Open>(pair.b, MessageType::kOpen);
    REQUIRE(open->contributors.size() == 1);
    REQUIRE(open->contributors[0].weight_tokens == 100);
  }
}

TEST_CASE("coordinator: who enters at the step of a round is not waited for") {
  Desk desk;
  const LinkId first = desk.join_active(1);
  const LinkId second = desk.join_active(2);
  desk.sync(first);
  desk.ready(first, 5, 1, 10);
  const LinkId late = desk.join_active(3);
  REQUIRE(desk.out.last<Start>(late, MessageType::kStart)->step == 10);
  REQUIRE(!desk.is_told(first, MessageType::kOpen));
  SECTION("it receives the result") {
    desk.ready(second, 5, 1, 10);
    REQUIRE(desk.out.last<Open>(late, MessageType::kOpen)->contributors.size() == 2);
  }
  SECTION("but it is for a later one") {
    desk.ready(second, 5, 1, 20);
    REQUIRE(!desk.is_told(first, MessageType::kOpen));
    desk.ready(late, 5, 1, 20);
    REQUIRE(desk.out.last<Open>(late, MessageType::kOpen)->contributors.size() == 3);
  }
}

TEST_CASE("coordinator: a round commits when all receivers hold the same") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.ready(pair.a, 100, 1, 20);
  desk.ready(pair.b, 50, 1, 25);
  desk.done(pair.a, 5);
  REQUIRE(!desk.is_told(pair.a, MessageType::kCommit));
  desk.done(pair.b, 5);
  const auto commit = desk.out.last<Commit>(pair.a, MessageType::kCommit);
  REQUIRE(commit->results == digest_of(5));
  REQUIRE(commit->step == 25);
  REQUIRE(desk.is_told(pair.b, MessageType::kCommit));
  REQUIRE(desk.coordinator->report().states[0] == FragmentState{1, {}});
  // The digest is what the majority has.
  for (const LinkId link : {pair.a, pair.b}) {
    desk.send(link, MessageType::kApplied, encode(Applied{digest_of(77)}), {.round = 1});
  }
  REQUIRE(desk.coordinator->report().states[0] == FragmentState{1, digest_of(77)});
  REQUIRE(desk.coordinator->report().rounds_committed == 1);
}

TEST_CASE("coordinator: nobody commits what was said of another attempt") {
  CoordinatorOptions options = small_options();
  options.start_members = 3;
  Desk desk(options);
  std::vector<LinkId> links;
  for (uint64_t key = 1; key <= 3; ++key) links.push_back(desk.join(desk.hello(key)));
  for (const LinkId link : links) desk.sync(link);
  for (const LinkId link : links) desk.ready(link, 10);
  const Authority first = desk.out.last(links[0], MessageType::kOpen)->authority;
  desk.done(links[0], 5);
  desk.coordinator->on_link_closed(links[2], "gone", desk.now, desk.out);
  const auto reown = desk.out.last<Reown>(links[0], MessageType::kReown);
  REQUIRE(reown->excluded.size() == 1);
  REQUIRE(reown->moves.size() == 1);  // Of four chunks, the one that was the third's.
  REQUIRE(reown->moves[0].chunk == 2);
  // Both say what they held before it: void.
  desk.send(links[0], MessageType::kDone, encode(Done{digest_of(5)}), first);
  desk.send(links[1], MessageType::kDone, encode(Done{digest_of(5)}), first);
  REQUIRE(!desk.is_told(links[0], MessageType::kCommit));
  desk.done(links[1], 6);
  REQUIRE(!desk.is_told(links[1], MessageType::kCommit));
  desk.done(links[0], 6);
  REQUIRE(desk.out.last<Commit>(links[0], MessageType::kCommit)->results == digest_of(6));
}

TEST_CASE("coordinator: whoever holds something else, or nothing in time, is left behind") {
  CoordinatorOptions options = small_options();
  options.start_members = 3;
  options.dead_after = seconds(1000);
  options.stall_after = seconds(900);
  Desk desk(options);
  std::vector<LinkId> links;
  for (uint64_t key = 1; key <= 3; ++key) links.push_back(desk.join(desk.hello(key)));
  for (const LinkId link : links) desk.sync(link);
  for (const LinkId link : links) desk.ready(link, 10);
  desk.done(links[0], 5);
  desk.done(links[1], 5);
  SECTION("another digest") {
    desk.done(links[2], 6);
  }
  SECTION("too late") {
    desk.pass(seconds(299));
    REQUIRE(!desk.is_told(links[0], MessageType::kCommit));
    desk.pass(seconds(2));
  }
  REQUIRE(desk.is_told(links[0], MessageType::kCommit));
  REQUIRE(desk.is_told(links[1], MessageType::kCommit));
  REQUIRE(!desk.is_told(links[2], MessageType::kCommit));
  const auto catch_up = desk.out.last<CatchUp>(links[2], MessageType::kCatchUp);
  REQUIRE(catch_up->states[0].version == 1);
  REQUIRE(catch_up->donors.size() == 2);
}

TEST_CASE("coordinator: too few who agree are not enough") {
  CoordinatorOptions options = small_options();
  options.members_min = 2;
  Pair pair(options);
  Desk& desk = pair.desk;
  desk.ready(pair.a, 100);
  desk.ready(pair.b, 50);
  const uint32_t first_attempt = desk.out.last(pair.a, MessageType::kOpen)->authority.attempt;
  desk.done(pair.a, 5);
  SECTION("they hold different results") {
    desk.done(pair.b, 6);
    REQUIRE(desk.is_told(pair.a, MessageType::kAbort));
    // What they said stands, so it is tried again, as something else.
    REQUIRE(desk.out.last(pair.a, MessageType::kOpen)->authority.attempt > first_attempt);
  }
  SECTION("one is gone") {
    desk.coordinator->on_link_closed(pair.b, "gone", desk.now, desk.out);
    REQUIRE(desk.is_told(pair.a, MessageType::kAbort));
    REQUIRE(desk.out.count(pair.a, MessageType::kOpen) == 1);
  }
  REQUIRE(!desk.is_told(pair.a, MessageType::kCommit));
}

TEST_CASE("coordinator: the one that most others wait for is excluded") {
  CoordinatorOptions options = small_options();
  options.start_members = 4;
  Desk desk(options);
  std::vector<LinkId> links;
  for (uint64_t key = 1; key <= 4; ++key) links.push_back(desk.join(desk.hello(key)));
  for (const LinkId link : links) desk.sync(link);
  for (const LinkId link : links) desk.ready(link, 10);
  const auto pass = [&](const std::vector<uint64_t>& waiting_for, int64_t time) {
    for (int64_t i = 0; i < time; ++i) {
      for (size_t m = 0; m < links.size(); ++m)
        desk.heartbeat(links[m], uint64_t(i), waiting_for[m]);
      desk.pass(seconds(1));
    }
  };
  // Peer 2 sends nothing to three; what it waits for itself does not count for much.
  SECTION("it is out") {
    pass({0b0100, 0b0100, 0b1011, 0b0100}, 29);
    REQUIRE(!desk.is_told(links[0], MessageType::kReown));
    pass({0b0100, 0b0100, 0b1011, 0b0100}, 3);
    REQUIRE(desk.out.last<Reown>(links[0], MessageType::kReown)->excluded ==
            std::vector<PeerId>{2});
    REQUIRE(desk.out.last<Reown>(links[2], MessageType::kReown)->excluded ==
            std::vector<PeerId>{2});
    REQUIRE(desk.coordinator->report().members_lost == 0);
    for (const size_t m : {0, 1, 3}) desk.done(links[m], 5);
    REQUIRE(desk.is_told(links[0], MessageType::kCommit));
    REQUIRE(!desk.is_told(links[2], MessageType::kCommit));
    REQUIRE(desk.out.count(links[2], MessageType::kCatchUp) == 2);
  }
  SECTION("a pause ends the blame") {
    pass({0b0100, 0b0100, 0, 0b0100}, 20);
    pass({0, 0, 0, 0}, 1);
    pass({0b0100, 0b0100, 0, 0b0100}, 20);
    REQUIRE(!desk.is_told(links[0], MessageType::kReown));
  }
  SECTION("one alone that waits is to blame itself") {
    for (const size_t m : {0, 1, 2}) desk.done(links[m], 5);
    for (int64_t i = 0; i < 32; ++i) {
      for (size_t m = 0; m < links.size(); ++m) desk.heartbeat(links[m], 0, m == 3 ? 0b0001 : 0);
      desk.pass(seconds(1));
    }
    REQUIRE(desk.is_told(links[0], MessageType::kCommit));
    REQUIRE(!desk.is_told(links[3], MessageType::kCommit));
  }
}

TEST_CASE("coordinator: silence is death, noise is not progress") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.pass_alive(seconds(60), {pair.a, pair.b});
  REQUIRE(desk.coordinator->report().members_lost == 0);
  REQUIRE(desk.is_told(pair.a, MessageType::kHeartbeatReply));
  desk.pass_alive(seconds(16), {pair.a});
  REQUIRE(desk.coordinator->report().members_lost == 1);
  REQUIRE(desk.out.closed.contains(pair.b));
  REQUIRE(desk.out.last<Membership>(pair.a, MessageType::kMembership)->members ==
          std::vector<PeerId>{0});
}

TEST_CASE("coordinator: one that becomes active in a round receives its result") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.ready(pair.a, 100);
  desk.ready(pair.b, 100);
  const LinkId c = desk.join_active(3);
  REQUIRE(desk.is_told(c, MessageType::kStart));
  REQUIRE(desk.out.last<Open>(c, MessageType::kOpen)->contributors.size() == 2);
  desk.done(pair.a, 5);
  desk.done(pair.b, 5);
  REQUIRE(!desk.is_told(pair.a, MessageType::kCommit));
  desk.done(c, 5);
  REQUIRE(desk.is_told(c, MessageType::kCommit));
}

TEST_CASE("coordinator: a newer state that comes late is in force at once") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.ready(pair.a, 100);
  desk.ready(pair.b, 100);
  const LinkId c = desk.join(desk.hello(3, 12, 9));
  REQUIRE(desk.is_told(pair.a, MessageType::kAbort));
  const auto catch_up = desk.out.last<CatchUp>(pair.a, MessageType::kCatchUp);
  REQUIRE(catch_up->states[0] == FragmentState{12, digest_of(9)});
  REQUIRE(catch_up->donors.size() == 1);
  desk.sync(c);
  REQUIRE(desk.is_told(c, MessageType::kStart));
}

TEST_CASE("coordinator: an older or different state is never activated") {
  Pair pair;
  Desk& desk = pair.desk;
  const LinkId c = desk.join(desk.hello(3, 0, 8));
  desk.send(c, MessageType::kSynced, encode(Synced{{{0, digest_of(8)}}}));
  REQUIRE(!desk.is_told(c, MessageType::kStart));
  desk.send(c, MessageType::kSynced, encode(Synced{{{kNoVersion, {}}}}));
  REQUIRE(!desk.is_told(c, MessageType::kStart));
  REQUIRE(desk.out.count(c, MessageType::kCatchUp) == 3);  // Told again each time.
  desk.sync(c);
  REQUIRE(desk.is_told(c, MessageType::kStart));
}

TEST_CASE("coordinator: who has only parts of a state that is lost is sent to its checkpoint") {
  Desk desk;
  const LinkId first = desk.join(desk.hello(1, kNoVersion));
  const LinkId second = desk.join(desk.hello(2, kNoVersion));
  SECTION("nobody brings the whole state") {
    desk.pass_alive(seconds(119), {first, second});
    REQUIRE(desk.reject_reason(first).empty());
    desk.pass_alive(seconds(2), {first, second});
    for (const LinkId link : {first, second}) {
      REQUIRE(desk.out.last<Reject>(link, MessageType::kReject)->restart_makes_sense);
      REQUIRE(desk.out.closed.contains(link));
    }
    REQUIRE(desk.coordinator->report().members.empty());
  }
  SECTION("somebody does") {
    desk.pass_alive(seconds(60), {first, second});
    const LinkId third = desk.join(desk.hello(3, 4));
    desk.sync(third);
    desk.pass_alive(seconds(100), {first, second, third});
    REQUIRE(desk.reject_reason(first).empty());
    REQUIRE(desk.out.last<CatchUp>(first, MessageType::kCatchUp)->states[0].version == 4);
  }
}

TEST_CASE("coordinator: it is finished when all have left and said that they are done") {
  Pair pair;
  Desk& desk = pair.desk;
  desk.send(pair.a, MessageType::kLeave, encode(Leave{kDoneReason}));
  desk.pass(seconds(1));
  REQUIRE(!desk.coordinator->report().finished);
  SECTION("both") {
    desk.send(pair.b, MessageType::kLeave, encode(Leave{kDoneReason}));
    desk.pass(seconds(1));
    REQUIRE(desk.coordinator->report().members_lost == 0);
  }
  SECTION("one died: it is waited for, not for ever") {
    desk.coordinator->on_link_closed(pair.b, "gone", desk.now, desk.out);
    desk.pass(seconds(100));
    REQUIRE(!desk.coordinator->report().finished);
    desk.pass(seconds(30));
  }
  REQUIRE(desk.coordinator->report().finished);
}

}  // namespace
}  // namespace net
