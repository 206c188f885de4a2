#include "net/coordinator/electorate.h"

#include <bit>

#include "support/catch.h"

namespace net {
namespace {

std::set<uint64_t> members_of(uint64_t mask) {
  std::set<uint64_t> members;
  for (uint64_t node = 0; node < 8; ++node) {
    if ((mask >> node & 1) != 0) members.insert(node + 1);
  }
  return members;
}

Electorate electorate_of(uint64_t mask, uint64_t tie_breaker = 0) {
  const auto members = members_of(mask);
  return {.voters = {members.begin(), members.end()}, .tie_breaker = tie_breaker};
}

TEST_CASE("electorate: two sets that have nobody in common are never both a quorum") {
  for (uint64_t count = 1; count <= 6; ++count) {
    const uint64_t all = (1u << count) - 1;
    for (uint64_t tie_breaker = 0; tie_breaker <= count; ++tie_breaker) {
      const Electorate electorate = electorate_of(all, tie_breaker);
      int64_t quorums = 0;
      for (uint64_t one = 0; one <= all; ++one) {
        // Those with the coordinator that made the list, and the others with a new one.
        if (!is_quorum(electorate, members_of(one), true)) continue;
        ++quorums;
        REQUIRE(!is_quorum(electorate, members_of(all & ~one), false));
        if (tie_breaker != 0) REQUIRE(!is_quorum(electorate, members_of(all & ~one), true));
        REQUIRE(2 * std::popcount(one) >= int(count));
      }
      REQUIRE(quorums > 0);
    }
  }
}

TEST_CASE("electorate: half is enough with the tie-breaker, or with the list's own coordinator") {
  REQUIRE(is_quorum(electorate_of(0b11), {1}, true));
  REQUIRE(!is_quorum(electorate_of(0b11), {1}, false));
  REQUIRE(is_quorum(electorate_of(0b11, 2), {2}, false));
  REQUIRE(!is_quorum(electorate_of(0b11, 2), {1}, true));
  REQUIRE(!is_quorum(electorate_of(0b111, 2), {2}, true));
}

// Whoever knows the newest list of some quorum of it must meet every quorum that can still commit.
TEST_CASE("electorates: an old one binds until a quorum of both knows the next") {
  Electorates electorates;
  electorates.begin({});
  REQUIRE(electorates.is_quorum({}));
  electorates.add(electorate_of(0b1111));
  electorates.add(electorate_of(0b0011));
  REQUIRE(!electorates.is_quorum({1}));
  REQUIRE(electorates.is_quorum({1, 2}));
  REQUIRE(!electorates.settle({1}));
  REQUIRE(electorates.settle({1, 3}));
  REQUIRE(electorates.is_settled());
  REQUIRE(electorates.is_quorum({1}));
  REQUIRE(!electorates.is_quorum({3, 4}));
}

TEST_CASE("electorates: what another coordinator left has no half that is a quorum") {
  Electorates electorates;
  electorates.begin({electorate_of(0b11), electorate_of(0b1)});
  REQUIRE(!electorates.is_quorum({1}));
  REQUIRE(electorates.is_quorum({1, 2}));
  REQUIRE(electorates.settle({1, 2}));
  REQUIRE(electorates.is_quorum({1}));
  electorates.add(electorate_of(0b11));
  REQUIRE(electorates.settle({1}));  // Half of ours, and we are its coordinator.
}

}  // namespace
}  // namespace net
