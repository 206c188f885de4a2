// A member in a round.
#include "net/member_stage.h"

namespace net {
namespace {

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

TEST_CASE("member: a part that the store leaves out has no weight in the result") {
  InRound stage;
  stage.store.left_out = {2};
  stage.finish();
  REQUIRE(stage.out.last<Done>(stage.coordinator(), MessageType::kDone)->results ==
          stage.results_digest(result(0b011, 100 + 101, 1 + 2 + 11, 0b100)));
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
    stage.give(2, name(WantKind::kResult, 2), result_payload({0b101, 0, 202}, {}));
  }
  SECTION("no header") {
    const auto bytes = std::vector<std::byte>{std::byte(WantKind::kResult)};
    stage.give(2, name(WantKind::kResult, 2),
               std::make_shared<const std::vector<std::byte>>(bytes));
  }
  SECTION("a part of the wrong size") {
    stage.give(2, name(WantKind::kContribution, 1), frozen({}));
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
  REQUIRE(decode<Done>(*done->payload)->results ==
          digest_of_results({result(0b110, 203, 10 + 5), result(0b110, 203, 11 + 2),
                             result(0b101, 202, 42), result(0b110, 203, 43)}));
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

TEST_CASE("member: Done is said again for a new attempt in which no chunk has moved") {
  InRound stage;
  stage.finish();
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 1);
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {2}, .moves = {}}), Stage::round(2));
  for (int i = 0; i < 4; ++i) stage.pass(seconds(1));
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 2);
}

TEST_CASE("member: Applied of a round does not take back the commit of the next one") {
  Stage stage;
  stage.start();
  const auto open_round = [&](uint64_t round) {
    Authority authority = Stage::round();
    authority.round = round;
    Open open;
    open.contributors.push_back({0, 100, Stage::address(0)});
    open.owners = {0, 0, 0, 0};
    stage.tell(MessageType::kOpen, encode(open), authority);
    return authority;
  };
  const auto make = [&](uint64_t round) {
    const Authority authority = open_round(round);
    for (uint32_t chunk = 0; chunk < 4; ++chunk) {
      Authority a = authority;
      a.chunk = chunk;
      stage.give(0, chunk_name(WantKind::kResult, a), result(0b1, 100, 40));
    }
    const auto done = stage.out.last<Done>(stage.coordinator(), MessageType::kDone);
    stage.tell(MessageType::kCommit, encode(Commit{done->results, 20}), authority);
  };
  make(1);
  make(2);
  REQUIRE(stage.last_event<Committed>()->round == 2);
  // The trainer was slow: it heard of both at one step boundary.
  stage.member->applied(0, {1, digest_of(8)}, stage.now, stage.out);
  stage.member->ready(0, 101, 20, stage.now, stage.out);
  REQUIRE(stage.out.count(stage.coordinator(), MessageType::kReady) == 0);  // Still void.
  open_round(3);
  REQUIRE(!stage.out.closed.contains(stage.coordinator()));
  stage.member->applied(0, {2, digest_of(9)}, stage.now, stage.out);
  stage.member->ready(0, 101, 20, stage.now, stage.out);
  REQUIRE(stage.out.last(stage.coordinator(), MessageType::kReady)->authority.round == 3);
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
  const auto told = [&] {
    stage.pass(seconds(1));
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    return *stage.out.last<Heartbeat>(stage.coordinator(), MessageType::kHeartbeat);
  };
  Heartbeat heartbeat = told();
  REQUIRE(heartbeat.owes_contribution == 0b101);
  REQUIRE(heartbeat.owes_result == 0b101);
  REQUIRE(heartbeat.silent == 0b101);
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  heartbeat = told();
  REQUIRE(heartbeat.owes_contribution == 0b001);
  REQUIRE(heartbeat.silent == 0b001);  // Peer 2 still owes a result, but has just sent something.
  REQUIRE(told().silent == 0b101);
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  heartbeat = told();
  REQUIRE(heartbeat.owes_contribution == 0);
  REQUIRE(heartbeat.owes_result == 0b101);
  REQUIRE(heartbeat.silent == 0b100);
}

TEST_CASE("member: steps are no progress of a round, chunks are") {
  InRound stage;
  const auto progress = [&] {
    stage.pass(seconds(1));
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    return stage.out.last<Heartbeat>(stage.coordinator(), MessageType::kHeartbeat)->progress;
  };
  const uint64_t before = progress();
  for (uint64_t step = 21; step < 30; ++step) stage.member->progress(step, 1.0f);
  REQUIRE(progress() == before);
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  REQUIRE(progress() == before + 1);
}

// --- What workers find out comes later, in any order.

TEST_CASE("member: a round is made whatever the order in which its jobs end") {
  InRound stage;
  stage.holds_jobs = true;
  stage.finish();
  const int64_t rotation = GENERATE(0, 1, 2, 3, 4);
  while (!stage.out.jobs.empty()) {
    for (int64_t i = 0; i < rotation; ++i) {
      stage.out.jobs.push_back(std::move(stage.out.jobs.front()));
      stage.out.jobs.pop_front();
    }
    REQUIRE(stage.out.count(stage.coordinator(), MessageType::kDone) == 0);
    stage.out.finish_job(stage.now);
  }
  REQUIRE(stage.out.last<Done>(stage.coordinator(), MessageType::kDone)->results ==
          stage.results_digest());
}

TEST_CASE("member: what is not checked yet is neither asked for again nor used") {
  InRound stage;
  stage.holds_jobs = true;
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  stage.take_wants(stage.link_to(0));
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {}, .moves = {{3, 2}}}),
             Stage::round(2));
  stage.pass(seconds(2));
  REQUIRE(stage.take_wants(stage.link_to(0)).empty());
  REQUIRE(stage.store.last_parts.empty());
  stage.out.finish_jobs(stage.now);
  REQUIRE(stage.store.last_parts.size() == 3);
}

TEST_CASE("member: what was being checked or summed when its round ended comes to nothing") {
  InRound stage;
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  stage.holds_jobs = true;
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  stage.give(0, name(WantKind::kResult, 0), result(0b111, 303, 40));
  const bool is_summing = GENERATE(true, false);
  if (is_summing) stage.out.finish_job(stage.now);  // The part is checked: the sum is a job now.
  SECTION("by an abort") {
    stage.tell(MessageType::kAbort, no_payload(), Stage::round());
    stage.out.finish_jobs(stage.now);
    stage.open();
  }
  SECTION("because it was opened again") {
    stage.open();
    stage.out.finish_jobs(stage.now);
  }
  stage.holds_jobs = false;
  stage.finish();
  REQUIRE(stage.out.last<Done>(stage.coordinator(), MessageType::kDone)->results ==
          stage.results_digest());
}

TEST_CASE("member: a sum that was being made when its chunk moved away is not given to anybody") {
  InRound stage;
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  stage.holds_jobs = true;
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  stage.out.finish_job(stage.now);
  const LinkId guest = stage.guest();
  Authority asked = Stage::round();
  asked.chunk = 1;
  stage.want(guest, WantKind::kResult, asked);
  const bool comes_back = GENERATE(true, false);
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {}, .moves = {{1, 2}}}),
             Stage::round(2));
  if (comes_back) {
    stage.tell(MessageType::kReown, encode(Reown{.excluded = {}, .moves = {{1, 1}}}),
               Stage::round(3));
  }
  stage.out.finish_jobs(stage.now);
  REQUIRE(stage.out.count(guest, MessageType::kChunk) == 0);
  REQUIRE(stage.out.count(guest, MessageType::kGone) == 1);
}

TEST_CASE("member: the part of one who is out, checked too late for the sum, is not missed") {
  InRound stage;
  stage.give(2, name(WantKind::kContribution, 1), part(2));
  stage.holds_jobs = true;
  stage.give(0, name(WantKind::kContribution, 1), part(1));
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {0}, .moves = {{0, 2}, {3, 2}}}),
             Stage::round(2));
  stage.out.finish_jobs(stage.now);
  REQUIRE(stage.store.last_parts.size() == 2);
  REQUIRE(stage.store.last_parts[0].peer == 1);
  REQUIRE(stage.store.last_parts[1].peer == 2);
}

TEST_CASE("member: what comes quicker than it is checked is not asked for without end") {
  InRound stage;
  stage.holds_jobs = true;
  // Two wants may be in flight of a lane, and what came of them is not looked at.
  stage.give(0, name(WantKind::kResult, 0), result(0b111, 303, 40));
  stage.give(0, name(WantKind::kResult, 3), result(0b111, 303, 43));
  stage.tell(MessageType::kReown, encode(Reown{.excluded = {}, .moves = {{2, 0}}}),
             Stage::round(2));
  stage.take_wants(stage.link_to(0));
  stage.pass(seconds(1));
  REQUIRE(stage.take_wants(stage.link_to(0)).empty());
  stage.out.finish_job(stage.now);
  REQUIRE(stage.take_wants(stage.link_to(0)) ==
          std::vector<ChunkName>{name(WantKind::kResult, 2, 2)});
}

TEST_CASE("member: a number that is another node's by now is not taken for ours") {
  InRound stage;
  const bool is_given_away = GENERATE(true, false);
  // We come back as peer 3 while the round is open, or is opened anew with another node as peer 1.
  stage.member->on_link_closed(stage.coordinator(), "broke", stage.now, stage.out);
  stage.pass(seconds(10));
  stage.welcome(3);
  stage.tell(MessageType::kCatchUp, encode(CatchUp{{{0, digest_of(1)}}, {}}));
  stage.tell(MessageType::kStart, encode(Start{.step = 7}));
  Open open;
  for (PeerId peer = 0; peer < 3; ++peer) {
    const PeerId host = peer == 1 && is_given_away ? 7 : peer;
    const uint64_t key = host == 7 ? 7 : 0;
    open.contributors.push_back({peer, 100 + int64_t(peer), Stage::address(host), key});
  }
  open.owners = {0, 0, 2, 0};
  stage.tell(MessageType::kOpen, encode(open), Stage::round(2));
  for (const uint32_t chunk : {0u, 1u, 3u})
    stage.give(0, name(WantKind::kResult, chunk, 2), result(0b111, 303, 40));
  stage.give(2, name(WantKind::kResult, 2, 2), result(0b111, 303, 40));
  const auto done = stage.out.last<Done>(stage.coordinator(), MessageType::kDone);
  stage.tell(MessageType::kCommit, encode(Commit{done->results, 20}), Stage::round(2));
  REQUIRE(stage.last_event<Committed>()->contributed == !is_given_away);
}

TEST_CASE("member: who cannot be dialled is named in the heartbeat") {
  InRound stage;
  const auto unreachable = [&] {
    stage.pass(seconds(1));
    stage.tell(MessageType::kHeartbeatReply, no_payload());
    return stage.out.last<Heartbeat>(stage.coordinator(), MessageType::kHeartbeat)->unreachable;
  };
  REQUIRE(unreachable() == 0);
  stage.member->on_link_closed(stage.link_to(2), "connection refused", stage.now, stage.out);
  REQUIRE(unreachable() == 0b100);
  stage.tell(MessageType::kHeartbeatReply, no_payload());
  stage.pass(seconds(1));
  stage.member->on_link_open(stage.link_to(2), false, {}, stage.now, stage.out);
  REQUIRE(unreachable() == 0);
  // A link that stood and broke is no failed dial.
  stage.member->on_link_closed(stage.link_to(2), "reset", stage.now, stage.out);
  REQUIRE(unreachable() == 0);
}

}  // namespace
}  // namespace net
