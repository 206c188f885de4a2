// Who is let in, and how a run starts.
#include "net/coordinator_desk.h"

namespace net {
namespace {

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
    desk.dials = Desk::Dials::kPending;
    const LinkId late = desk.join(desk.hello(1));
    REQUIRE(desk.reject_reason(late).find("full") != std::string::npos);
    // Some may leave: a service manager shall try again.
    REQUIRE(desk.out.last<Reject>(late, MessageType::kReject)->restart_makes_sense);
    // One of them that comes again is not one too many.
    const LinkId again = desk.join(desk.hello(100));
    desk.pass(seconds(3));
    REQUIRE(desk.is_told(again, MessageType::kWelcome));
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
  desk.dials = Desk::Dials::kPending;
  const LinkId again = desk.join(desk.hello(1));
  desk.pass(seconds(1));
  REQUIRE(!desk.out.closed.contains(old));  // It may be alive.
  desk.pass(seconds(1));
  REQUIRE(desk.out.closed.contains(old));
  REQUIRE(!desk.is_told(again, MessageType::kCatchUp));  // One node is not two members.
  REQUIRE(desk.coordinator->report().members.size() == 1);
  const auto first = desk.out.last<Welcome>(old, MessageType::kWelcome);
  const auto second = desk.out.last<Welcome>(again, MessageType::kWelcome);
  REQUIRE(first->peer == second->peer);
}

TEST_CASE("coordinator: a copy of a run directory does not throw out its original") {
  Desk desk;
  const LinkId original = desk.join(desk.hello(1));
  desk.dials = Desk::Dials::kPending;
  desk.pass(seconds(1));
  for (int attempt = 0; attempt < 20; ++attempt) {
    const LinkId copy = desk.join(desk.hello(1));
    desk.heartbeat(original);
    desk.pass(seconds(1));
    desk.heartbeat(original);
    desk.pass(seconds(1));
    const auto reject = desk.out.last<Reject>(copy, MessageType::kReject);
    REQUIRE(reject);
    REQUIRE(!reject->restart_makes_sense);
    REQUIRE(reject->reason.find("node_key") != std::string::npos);
    REQUIRE(reject->reason.find("10.1.1.1:5555") != std::string::npos);
  }
  REQUIRE(!desk.out.closed.contains(original));
  REQUIRE(desk.out.count(original, MessageType::kWelcome) == 1);
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
  // The 33 steps since the last commit are the first one's own; should it die, nobody has them.
  REQUIRE(desk.out.last<Start>(second, MessageType::kStart)->step == 400);
  REQUIRE(desk.out.last<Membership>(first, MessageType::kMembership)->members.size() == 2);
}

TEST_CASE("coordinator: terms rise above those that members knew") {
  Desk desk;
  const LinkId link = desk.join(desk.hello(1), 17);
  REQUIRE(desk.out.last(link, MessageType::kWelcome)->authority.term == 18);
}

}  // namespace
}  // namespace net
