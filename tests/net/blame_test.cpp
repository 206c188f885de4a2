// Who is blamed: each case is a round of a few members and what they say of each other.
#include "net/coordinator/blame.h"

#include <vector>

#include "support/catch.h"

namespace net {
namespace {

// All contribute, own chunks, have moved and are done with nothing.
std::vector<Witness> round_of(PeerId count) {
  std::vector<Witness> all;
  for (PeerId peer = 0; peer < count; ++peer) {
    all.push_back({.peer = peer,
                   .is_contributor = true,
                   .is_owner = true,
                   .has_moved = true,
                   .came_as = int64_t(peer)});
  }
  return all;
}

PeerId blamed(const std::vector<Witness>& all) {
  const auto blame = find_blame(all);
  return blame ? blame->peer : kNobody;
}

TEST_CASE("blame: nobody, while everybody moves") {
  REQUIRE(blamed(round_of(4)) == kNobody);
}

TEST_CASE("blame: who owes contributions has no excuse, though it waits itself") {
  auto all = round_of(4);
  for (const size_t other : {0, 1, 3}) all[other].waits_for_contribution = 0b0100;
  // Everybody's results are late because of it, its own complaints too.
  for (Witness& one : all) one.waits_for_result = uint64_t(0b1111) & ~(uint64_t{1} << one.peer);
  for (const size_t other : {0, 1, 3}) all[other].is_excused = true;
  REQUIRE(blamed(all) == 2);
  SECTION("also if the others have stopped moving") {
    for (Witness& one : all) one.has_moved = false;
    REQUIRE(blamed(all) == 2);
  }
}

TEST_CASE("blame: who complains of everybody is the one that hears nobody") {
  for (const PeerId count : {3, 4, 8}) {
    auto all = round_of(count);
    all[1].waits_for_contribution = ((uint64_t{1} << count) - 1) & ~uint64_t{0b10};
    REQUIRE(blamed(all) == 1);
  }
}

TEST_CASE("blame: two mute ones are found by those whom they serve as badly") {
  auto all = round_of(5);
  for (const size_t other : {0, 1, 2}) all[other].waits_for_contribution = 0b11000;
  all[3].waits_for_contribution = 0b10000;
  all[4].waits_for_contribution = 0b01000;
  const PeerId first = blamed(all);
  REQUIRE((first == 3 || first == 4));
}

TEST_CASE("blame: an owner that lacks contributions is not blamed for its results") {
  auto all = round_of(4);
  for (const size_t other : {1, 2, 3}) all[other].waits_for_result = 0b0001;
  SECTION("it has all parts") {
    REQUIRE(blamed(all) == 0);
  }
  SECTION("it lacks some, or did a moment ago") {
    all[0].is_excused = true;
    REQUIRE(blamed(all) == kNobody);
  }
}

TEST_CASE("blame: to wait for owners that have an excuse is no sign of a broken line") {
  auto all = round_of(3);
  all[0].waits_for_result = 0b110;
  for (const size_t owner : {1, 2}) all[owner].is_excused = true;
  REQUIRE(blamed(all) == kNobody);
}

// A mute one was left out a moment ago, and nobody has said since that he is served now.
TEST_CASE("blame: who waits for the results of owners that all lacked the same part hears well") {
  auto all = round_of(3);
  for (Witness& one : all) {
    one.waits_for_result = uint64_t(0b1111) & ~(uint64_t{1} << one.peer);
    one.is_excused = true;
  }
  REQUIRE(blamed(all) == kNobody);
  SECTION("but not who alone waits for those that have all parts") {
    all = round_of(3);
    all[1].waits_for_result = 0b0101;
    REQUIRE(blamed(all) == 1);
  }
}

TEST_CASE("blame: a minority's word is not enough") {
  auto all = round_of(5);
  all[0].waits_for_contribution = all[1].waits_for_contribution = 0b10000;
  REQUIRE(blamed(all) == kNobody);
  all[2].waits_for_contribution = 0b10000;
  REQUIRE(blamed(all) == 4);
}

TEST_CASE("blame: who cannot be dialled, and who cannot dial") {
  auto all = round_of(4);
  for (const size_t other : {0, 2, 3}) all[other].cannot_dial = 0b0010;
  REQUIRE(find_blame(all)->peer == 1);
  REQUIRE(find_blame(all)->why == "cannot be dialled by the others");
  all = round_of(4);
  all[1].cannot_dial = 0b1101;
  REQUIRE(find_blame(all)->peer == 1);
  REQUIRE(find_blame(all)->why == "cannot dial most of the others");
}

TEST_CASE("blame: of two, the debts decide; of equal debts, the past, then who came last") {
  auto all = round_of(2);
  all[0].waits_for_contribution = 0b10;
  REQUIRE(blamed(all) == 1);
  all[1].waits_for_contribution = 0b01;
  REQUIRE(blamed(all) == 1);
  all[0].offences = 1;
  REQUIRE(blamed(all) == 0);
}

TEST_CASE("blame: who lacks nothing and does not finish, or is the last and stands still") {
  auto all = round_of(3);
  for (const size_t other : {0, 2}) all[other].is_done = true;
  all[1].lacks_any = true;
  REQUIRE(blamed(all) == kNobody);  // It is on its way.
  all[1].has_moved = false;
  REQUIRE(blamed(all) == 1);
  all[2].is_done = false;  // Two are late, and each may wait for the other.
  all[2].lacks_any = true;
  all[2].has_moved = false;
  REQUIRE(blamed(all) == kNobody);
  all[2].lacks_any = false;
  REQUIRE(blamed(all) == 2);
}

}  // namespace
}  // namespace net
