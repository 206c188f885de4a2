// What a node does by which word, when there may be several coordinators: the fence at the member,
// and what a coordinator makes of the rounds that the one before left open.
#include "net/coordinator/held_rounds.h"
#include "net/member_stage.h"
#include "support/catch.h"

namespace net {
namespace {

TEST_CASE("fail over: a member never goes back to an older coordinator") {
  Stage stage;
  const auto welcome_from = [&](uint64_t coordinator, uint32_t term) {
    const LinkId link = stage.coordinator();
    stage.member->on_link_open(link, false, {}, stage.now, stage.out);
    const Welcome welcome{.peer = 1,
                          .heartbeat_interval_ms = 1000,
                          .dead_after_ms = 60'000,
                          .coordinator = coordinator};
    stage.tell(MessageType::kWelcome, encode(welcome), {.term = term});
    const bool is_followed = !stage.member->followed().empty();
    if (is_followed) stage.member->on_link_closed(link, "it was reset", stage.now, stage.out);
    stage.pass(seconds(6));
    return is_followed;
  };
  REQUIRE(welcome_from(11, 5));
  REQUIRE(welcome_from(11, 5));
  REQUIRE(!welcome_from(12, 5));  // Of two with one term it stays with its own.
  REQUIRE(!welcome_from(11, 4));
  REQUIRE(welcome_from(12, 6));
  REQUIRE(!welcome_from(11, 5));
  const auto hello = stage.out.last<Hello>(stage.coordinator(), MessageType::kHello);
  REQUIRE((!hello || hello->coordinator == 12));
}

Roster roster_of(int64_t count) {
  Roster roster;
  for (int64_t i = 1; i <= count; ++i) {
    MemberRecord record;
    record.node_key = uint64_t(i);
    record.link = LinkId(i);
    record.states = {{.version = 3, .digest = digest_of(1)}};
    REQUIRE(roster.add(record, {}) != nullptr);
  }
  return roster;
}

HeldRound held_round(uint32_t term, uint32_t attempt, uint8_t results, uint64_t round = 4) {
  return {.term = term, .attempt = attempt, .round = round, .results = digest_of(results)};
}

TEST_CASE("fail over: what may have been committed is, and nothing else") {
  const std::vector<Electorate> five = {{.voters = {1, 2, 3, 4, 5}}};
  const auto committable = [&](Roster& roster) { return last_committable(roster, five, 0, 3); };
  Roster three = roster_of(3);  // Two of the five are not here.
  REQUIRE(!committable(three));
  three.find_node(1)->held = {held_round(1, 1, 7)};
  REQUIRE(committable(three)->results == digest_of(7));  // It and those two may have held it.
  Roster five_here = roster_of(5);
  for (const uint64_t node : {1, 2}) five_here.find_node(node)->held = {held_round(1, 1, 7)};
  REQUIRE(!committable(five_here));
  five_here.find_node(3)->held = {held_round(1, 1, 7)};
  REQUIRE(committable(five_here));
  // Opened again by the same coordinator, or by another one: only the last time counts.
  three.find_node(2)->held = {held_round(1, 2, 8)};
  REQUIRE(committable(three)->results == digest_of(8));
  three.find_node(3)->held = {held_round(2, 1, 9)};
  REQUIRE(committable(three)->results == digest_of(9));
  // Nobody can make it out of what he has.
  three.find_node(3)->states[0].version = 2;
  REQUIRE(committable(three)->results == digest_of(8));
  // What may have been forgotten may have been held.
  Roster forgetful = roster_of(5);
  for (const uint64_t node : {1, 2}) forgetful.find_node(node)->held = {held_round(1, 1, 7)};
  REQUIRE(!committable(forgetful));
  forgetful.find_node(5)->remembers = false;
  REQUIRE(committable(forgetful)->results == digest_of(7));
  // Of two that would make the version in force, the one of which somebody says that it did.
  Roster split = roster_of(5);
  split.find_node(1)->states[0].version = 4;
  split.find_node(2)->held = {held_round(1, 1, 7)};
  REQUIRE(!last_committable(split, five, 0, 4));
  split.find_node(1)->held = {held_round(1, 1, 8)};
  split.find_node(3)->held = {held_round(1, 1, 8)};
  REQUIRE(last_committable(split, five, 0, 4)->results == digest_of(8));
  // Of another version than the next one.
  for (const uint64_t node : {1, 2, 3}) three.find_node(node)->held = {held_round(1, 1, 7, 6)};
  REQUIRE(!committable(three));
}

}  // namespace
}  // namespace net
