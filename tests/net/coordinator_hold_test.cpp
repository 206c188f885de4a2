// Commits that wait for somebody who would never get in: the coordinator alone, as in
// coordinator_test.cpp.
#include "net/coordinator_desk.h"

namespace net {
namespace {

class Outrun : public Desk {
 public:
  Outrun() : members{join(hello(1)), join(hello(2))} {
    for (const LinkId link : members) sync(link);
    commit_next();
    joiner = join(hello(3));
    REQUIRE(is_told(joiner, MessageType::kCatchUp));
  }
  // All have done what they can for the next round; the joiner says how much it lacks.
  void bring_next(uint32_t lacks) {
    if (joiner != 0)
      send(joiner, MessageType::kHeartbeat, encode(Heartbeat{.step = 1, .lacks = lacks}));
    ++version;
    for (const LinkId link : members) ready(link, 10, version, 10 * version);
    for (const LinkId link : members) done(link, 5);
  }
  void apply() {
    for (const LinkId link : members) {
      send(link, MessageType::kApplied, encode(Applied{digest_of(uint8_t(version))}),
           {.round = version});
    }
  }
  void commit_next(uint32_t lacks = 0) {
    bring_next(lacks);
    REQUIRE(is_committed());
    apply();
  }
  bool is_committed() const {
    return out.count(members[0], MessageType::kCommit) == int64_t(version);
  }

  std::vector<LinkId> members;
  LinkId joiner = 0;
  uint64_t version = 0;
};

// Two rounds of four chunks are little; eight commits are two times four that it missed.
TEST_CASE("coordinator: a commit waits a moment for who lacks little and is never in step") {
  Outrun run;
  for (int round = 0; round < 8; ++round) run.commit_next(8);
  run.bring_next(8);
  REQUIRE(!run.is_committed());
  run.pass(milliseconds(900));
  REQUIRE(!run.is_committed());
  run.pass(milliseconds(200));
  REQUIRE(run.is_committed());
  run.apply();
  // Not again for a while, whatever it says.
  for (int round = 0; round < 12; ++round) run.commit_next(1);
}

TEST_CASE("coordinator: no commit waits for who lacks much, or gets on") {
  Outrun run;
  SECTION("much") {
    for (int round = 0; round < 40; ++round) run.commit_next(9);
  }
  SECTION("little, now and then") {
    for (int round = 0; round < 40; ++round) run.commit_next(round % 4 == 0 ? 9 : 8);
  }
}

TEST_CASE("coordinator: a held commit is made as soon as the one that it waits for is in") {
  Outrun run;
  for (int round = 0; round < 8; ++round) run.commit_next(8);
  run.bring_next(8);
  REQUIRE(!run.is_committed());
  run.sync(run.joiner);
  REQUIRE(run.is_told(run.joiner, MessageType::kStart));
  run.done(run.joiner, 5);
  REQUIRE(run.is_committed());
}

}  // namespace
}  // namespace net
