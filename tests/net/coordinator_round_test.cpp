// The coordinator's rounds, and what it does about members that fail them.
#include "net/coordinator_desk.h"

namespace net {
namespace {

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

TEST_CASE("coordinator: who enters in the middle of the steps for a round is not waited for") {
  Desk desk;
  const LinkId first = desk.join_active(1);
  const LinkId second = desk.join_active(2);
  desk.sync(first);
  desk.ready(first, 5, 1, 10);
  desk.heartbeat(second);
  const LinkId late = desk.join_active(3);
  // What the others have trained since the last commit is not the run's yet.
  REQUIRE(desk.out.last<Start>(late, MessageType::kStart)->step == 0);
  REQUIRE(!desk.is_told(first, MessageType::kOpen));
  desk.ready(second, 5, 1, 10);
  REQUIRE(desk.out.last<Open>(late, MessageType::kOpen)->contributors.size() == 2);
  for (const LinkId link : {first, second, late}) desk.done(link, 5);
  REQUIRE(desk.out.last<Commit>(late, MessageType::kCommit)->step == 10);
  // For the next one it is.
  for (const LinkId link : {first, second}) desk.ready(link, 5, 2, 20);
  REQUIRE(desk.out.count(first, MessageType::kOpen) == 1);
  desk.ready(late, 5, 2, 20);
  REQUIRE(desk.out.last<Open>(late, MessageType::kOpen)->contributors.size() == 3);
}

// After a restart of the coordinator: one has made the round of step 10, the other has not and is
// ready for it again. The round that it is in waits for the first one's next.
TEST_CASE("coordinator: who was there at the start is waited for at every step") {
  Desk desk;
  Hello hello = desk.hello(1);
  hello.step = 10;
  const LinkId first = desk.join(hello);
  const LinkId second = desk.join(desk.hello(2));
  desk.sync(first);
  desk.sync(second);
  REQUIRE(desk.out.last<Start>(second, MessageType::kStart)->step == 10);
  desk.ready(second, 5, 1, 10);
  REQUIRE(!desk.is_told(second, MessageType::kOpen));
  desk.ready(first, 5, 1, 15);
  REQUIRE(desk.out.last<Open>(second, MessageType::kOpen)->contributors.size() == 2);
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
  const auto pass = [&](const std::vector<uint64_t>& contributions, int64_t time) {
    for (int64_t i = 0; i < time; ++i) {
      for (size_t m = 0; m < links.size(); ++m)
        desk.heartbeat(links[m], uint64_t(i), contributions[m]);
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
    REQUIRE(desk.out.last<CatchUp>(links[2], MessageType::kCatchUp)->states[0].version == 1);
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
  const auto told = desk.out.last<Membership>(pair.a, MessageType::kMembership);
  REQUIRE(told->members.size() == 1);
  REQUIRE(told->members[0].peer == 0);
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

TEST_CASE("coordinator: a newer state that comes late is in force by the operator's word only") {
  CoordinatorOptions options = small_options();
  SECTION("far ahead: somebody is mistaken, or lies") {
    Pair pair;
    for (const LinkId link : {pair.a, pair.b}) pair.desk.ready(link, 100);
    for (const LinkId link : {pair.a, pair.b}) pair.desk.done(link, 5);
    const LinkId c = pair.desk.join(pair.desk.hello(3, 12, 9));
    pair.desk.pass_alive(seconds(121), {pair.a, pair.b, c});
    REQUIRE(pair.desk.reject_reason(c).find("swarm.adopt_newer") != std::string::npos);
    REQUIRE(!pair.desk.out.last<Reject>(c, MessageType::kReject)->restart_makes_sense);
    REQUIRE(pair.desk.coordinator->report().states[0].version == 1);
    REQUIRE(pair.desk.coordinator->report().members.size() == 2);
    return;
  }
  SECTION("most of those who were the run come back to a coordinator that found an old node") {
    options.start_members = 1;
    Desk desk(options);
    const LinkId old = desk.join_active(9);
    desk.ready(old, 100);
    desk.done(old, 5);
    std::vector<LinkId> back;
    for (uint64_t key = 1; key <= 2; ++key) {
      Hello hello = desk.hello(key, 12, 9);
      hello.step = 240;
      hello.last_term = 3;
      hello.last_epoch = 5;
      hello.last_member_count = 3;
      back.push_back(desk.join(hello));
      REQUIRE(desk.is_told(back[0], MessageType::kCatchUp) == (key == 2));
    }
    REQUIRE(desk.out.last<CatchUp>(old, MessageType::kCatchUp)->states[0] ==
            FragmentState{12, digest_of(9)});
    desk.sync(back[0]);
    REQUIRE(desk.out.last<Start>(back[0], MessageType::kStart)->step == 240);
    return;
  }
  SECTION("one of those is not enough") {
    Pair pair;
    for (const LinkId link : {pair.a, pair.b}) pair.desk.ready(link, 100);
    for (const LinkId link : {pair.a, pair.b}) pair.desk.done(link, 5);
    Hello hello = pair.desk.hello(3, 12, 9);
    hello.last_term = 3;
    hello.last_epoch = 5;
    hello.last_member_count = 1;  // It says that it was alone; but here are two.
    const LinkId c = pair.desk.join(hello);
    REQUIRE(!pair.desk.is_told(c, MessageType::kCatchUp));
    REQUIRE(pair.desk.coordinator->report().states[0].version == 1);
    return;
  }
  SECTION("a commit that only it has heard of: it takes the run's state") {
    Pair pair;
    for (const LinkId link : {pair.a, pair.b}) pair.desk.ready(link, 100);
    for (const LinkId link : {pair.a, pair.b}) pair.desk.done(link, 5);
    const LinkId c = pair.desk.join(pair.desk.hello(3, 2, 9));
    const auto catch_up = pair.desk.out.last<CatchUp>(c, MessageType::kCatchUp);
    REQUIRE(catch_up->states[0] == FragmentState{1, {}});
    REQUIRE(catch_up->donors.size() == 2);
    return;
  }
  options.adopt_newer = true;
  Pair pair(options);
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

TEST_CASE("coordinator: a version that another coordinator has made is not taken for the run's") {
  CoordinatorOptions options = small_options();
  options.start_members = 1;
  Desk desk(options);
  const LinkId a = desk.join_active(1);
  desk.ready(a, 500);
  desk.done(a, 5);
  REQUIRE(desk.is_told(a, MessageType::kCommit));
  // The first one has not yet said which state its version 1 is. Two come with another.
  const LinkId b = desk.join(desk.hello(2, 1, 9)), c = desk.join(desk.hello(3, 1, 9));
  for (const LinkId link : {b, c}) {
    const int64_t told = desk.out.count(link, MessageType::kCatchUp);
    desk.send(link, MessageType::kSynced, encode(Synced{desk.hello(2, 1, 9).states}));
    REQUIRE(!desk.is_told(link, MessageType::kStart));
    REQUIRE(desk.out.count(link, MessageType::kCatchUp) == told);  // Or it would answer for ever.
  }
  desk.send(a, MessageType::kApplied, encode(Applied{digest_of(7)}), {.round = 1});
  for (const LinkId link : {b, c}) {
    REQUIRE(!desk.is_told(link, MessageType::kStart));
    const auto catch_up = desk.out.last<CatchUp>(link, MessageType::kCatchUp);
    REQUIRE(catch_up->states[0] == FragmentState{1, digest_of(7)});
    desk.sync(link);
    REQUIRE(desk.is_told(link, MessageType::kStart));
  }
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
