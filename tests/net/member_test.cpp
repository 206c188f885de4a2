// The member's link to the coordinator: registering, losing it, finding it again.
#include "net/member_stage.h"
#include "net/security_rig.h"

namespace net {
namespace {

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

TEST_CASE("member: with a list of keys it registers only with the coordinator's, and follows it") {
  MemberOptions options = Stage::default_options();
  options.coordinator_key = node_key(9).id();
  options.allowed = allowing({9});
  Stage stage(options);
  const auto open_as = [&](uint8_t node) {
    stage.member->on_link_open(stage.coordinator(), false,
                               {.endpoint = {}, .node = node_key(node).id()}, stage.now, stage.out);
  };
  const LinkId impostor = stage.coordinator();
  open_as(8);
  REQUIRE(stage.out.closed.contains(impostor));
  REQUIRE(stage.out.last(impostor, MessageType::kHello) == nullptr);
  stage.pass(milliseconds(250));
  REQUIRE(stage.coordinator() != impostor);
  open_as(9);
  REQUIRE(stage.out.last(stage.coordinator(), MessageType::kHello) != nullptr);
  const Welcome welcome{.peer = 1, .heartbeat_interval_ms = 1000, .dead_after_ms = 5000};
  stage.tell(MessageType::kWelcome, encode(welcome), {.term = 1});
  stage.tell(MessageType::kKeys, encode(Keys{.allowed = {node_key(1).id(), node_key(2).id()}}));
  for (const uint8_t node : {1, 2, 9}) REQUIRE(options.allowed->contains(node_key(node).id()));
  stage.tell(MessageType::kKeys, encode(Keys{.allowed = {node_key(2).id()}}));
  REQUIRE(!options.allowed->contains(node_key(1).id()));
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

}  // namespace
}  // namespace net
