// What a member gives to others.
#include "net/member_stage.h"

namespace net {
namespace {

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
  asked.chunk = 0;
  stage.want(guest, WantKind::kResult, asked);  // Of somebody else in the first attempt.
  stage.want(guest, WantKind::kContribution, asked);
  REQUIRE(stage.out.sent[guest].empty());
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{0, 1}}}),
             Stage::round(2));
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *part(10));
  stage.give(2, name(WantKind::kContribution, 0, 2), part(5));
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 2);
  REQUIRE(*stage.out.last(guest, MessageType::kChunk)->payload == *result(0b110, 203, 15));
}

TEST_CASE(
    "member: a result stays when its chunk is to be summed by the same owner in another way") {
  InRound stage;
  stage.finish();
  const LinkId guest = stage.guest();
  const auto before = stage.out.sent.size();
  Authority asked = Stage::round(2);
  asked.chunk = 1;
  stage.want(guest, WantKind::kResult, asked);
  REQUIRE(stage.out.sent[guest].empty());
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{1, 1}}}),
             Stage::round(2));
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 1);
  const auto header = read_result_header(*stage.out.last(guest, MessageType::kChunk)->payload);
  REQUIRE(header->contributors == 0b111);
  REQUIRE(stage.out.sent.size() == before + 1);
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

TEST_CASE("member: who hardly reads gives way when much is queued") {
  InRound stage;
  const LinkId guest = stage.guest();
  stage.out.queued = kQueuedBytesMax;
  stage.want(guest, WantKind::kContribution, Stage::round());
  int64_t taken_each_second = 0;
  bool is_closed = false;
  SECTION("it takes nothing") {
    stage.out.queued_elsewhere = 64 * 1024 * 1024;
    is_closed = true;
  }
  SECTION("it takes a byte now and then") {
    stage.out.queued_elsewhere = 64 * 1024 * 1024;
    taken_each_second = 1;
    is_closed = true;
  }
  SECTION("it is slow") {
    stage.out.queued_elsewhere = 64 * 1024 * 1024;
    taken_each_second = 128 * 1024;
  }
  SECTION("there is room for all") {}
  for (int second = 0; second < 3; ++second) {
    for (int tick = 0; tick < 10; ++tick) {
      stage.out.queued -= taken_each_second / 10 + (tick == 0 ? taken_each_second % 10 : 0);
      stage.tell(MessageType::kHeartbeatReply, no_payload());
      stage.pass(milliseconds(100));
    }
  }
  REQUIRE(stage.out.closed.contains(guest) == is_closed);
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

TEST_CASE(
    "member: with many guests from one address nobody gets a second link, and all have their "
    "first") {
  Stage stage;
  stage.start();
  LinkId next = 1;
  const auto greet = [&](PeerId peer, const std::string& host = "10.0.0.9") {
    const LinkId link = next++;
    stage.member->on_link_open(link, true, {host, 1}, stage.now, stage.out);
    stage.receive(link, MessageType::kDataHello, encode(DataHello{peer}));
    return link;
  };
  std::vector<LinkId> links;
  for (PeerId peer = 0; peer < 8; ++peer) {
    for (int i = 0; i < 16; ++i) links.push_back(greet(peer));
  }
  REQUIRE(stage.out.closed.contains(greet(3)));
  REQUIRE(!stage.out.closed.contains(greet(20)));
  REQUIRE(!stage.out.closed.contains(greet(3, "10.0.0.3")));
  REQUIRE(!stage.out.closed.contains(greet(3, "10.0.0.3")));
  for (const LinkId link : links) REQUIRE(!stage.out.closed.contains(link));
  for (int i = 0; i < 16; ++i)
    stage.member->on_link_closed(links[size_t(i)], "", stage.now, stage.out);
  REQUIRE(!stage.out.closed.contains(greet(3)));
}

TEST_CASE("member: who says that he is somebody else keeps nobody out") {
  Stage stage;
  stage.start();
  LinkId next = 1;
  const auto greet = [&](PeerId peer, const std::string& host) {
    const LinkId link = next++;
    stage.member->on_link_open(link, true, {host, 1}, stage.now, stage.out);
    stage.receive(link, MessageType::kDataHello, encode(DataHello{peer}));
    return !stage.out.closed.contains(link);
  };
  for (int i = 0; i < 600; ++i) greet(5, fmt::format("10.1.0.{}", i % 6));
  REQUIRE(greet(5, "10.0.0.5"));
  REQUIRE(!greet(5, "10.0.0.5"));
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
