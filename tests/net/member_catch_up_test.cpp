// A member that is behind: fetching the state from donors.
#include "net/member_stage.h"

namespace net {
namespace {

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
    return {{{version, digest_of(6)}}, {{0, address(0)}, {2, address(2)}}, 20 * version};
  }
  // All that is asked for is answered, until nothing is.
  void serve(uint64_t version) {
    for (bool has_moved = true; has_moved;) {
      has_moved = false;
      for (const PeerId peer : {0u, 2u}) {
        for (const ChunkName& name : take_wants(link_to(peer))) {
          has_moved = true;
          if (name.kind == WantKind::kDigests) {
            receive(link_to(peer), MessageType::kGone, encode(Gone{name.kind}),
                    authority_of(name, 0));
            continue;
          }
          give(peer, name, state_payload(version, one_byte(int(version) * 10 + int(name.chunk))));
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
  SECTION("damaged, and nobody says where: all of it again") {
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

TEST_CASE("member: the step goes with the state, also if it is lost before the start") {
  CatchingUp stage;
  stage.serve(6);
  stage.member->synced({{6, digest_of(6)}}, stage.now, stage.out);
  stage.member->on_link_closed(stage.coordinator(), "broke", stage.now, stage.out);
  stage.pass(seconds(1));
  stage.welcome();
  const auto hello = stage.out.last<Hello>(stage.coordinator(), MessageType::kHello);
  REQUIRE(hello->states[0].version == 6);
  REQUIRE(hello->step == 120);
}

TEST_CASE("member: a newer state than the one that is fetched starts it again") {
  CatchingUp stage;
  const auto wants = stage.take_wants(stage.link_to(0));
  stage.give(0, wants[0], state_payload(6, one_byte(1)));
  stage.give(0, wants[1], state_payload(6, one_byte(1)));
  SECTION("by the coordinator, after a donor") {
    const auto others = stage.take_wants(stage.link_to(2));
    for (const ChunkName& name : others) {
      stage.give(2, name, state_payload(7, one_byte(70 + int(name.chunk))));
    }
  }
  stage.tell(MessageType::kCatchUp, encode(CatchingUp::to_version(7)));
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

}  // namespace
}  // namespace net
