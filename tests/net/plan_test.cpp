// Plans and elections are pure functions: all small cases are tried.
#include "net/exchange/plan.h"

#include <algorithm>

#include "net/coordinator/lineage.h"
#include "support/catch.h"

namespace net {
namespace {

std::vector<int64_t> shares(const Plan& plan, int64_t contributor_count) {
  std::vector<int64_t> shares(size_t(contributor_count), 0);
  for (const uint8_t owner : plan.owners) ++shares.at(owner);
  return shares;
}

ContributorMask first(int64_t contributor_count) {
  return ~ContributorMask{0} >> (kMembersMax - contributor_count);
}

int64_t spread(const std::vector<int64_t>& shares) {
  return *std::ranges::max_element(shares) - *std::ranges::min_element(shares);
}

TEST_CASE("plan: shares are equal") {
  for (int64_t chunks = 0; chunks < 40; ++chunks) {
    for (int64_t contributors = 1; contributors <= kMembersMax; ++contributors) {
      const Plan plan = make_direct_plan(chunks, first(contributors), 3);
      REQUIRE(int64_t(plan.owners.size()) == chunks);
      REQUIRE(spread(shares(plan, contributors)) <= 1);
      REQUIRE(std::ranges::count(plan.attempts, 3u) == chunks);
    }
  }
}

TEST_CASE("plan: only the chunks of the excluded move, and evenly") {
  constexpr int64_t kContributors = 6;
  for (ContributorMask excluded = 0; excluded + 1 < 1u << kContributors; ++excluded) {
    Plan plan = make_direct_plan(25, first(kContributors), 1);
    const Plan before = plan;
    const auto moves = move_chunks(plan, first(kContributors) & ~excluded);
    apply_moves(plan, moves, 2);
    std::vector<int64_t> received(size_t(kContributors), 0);
    for (size_t chunk = 0; chunk < plan.owners.size(); ++chunk) {
      const bool is_moved = (excluded >> before.owners[chunk] & 1) != 0;
      REQUIRE(plan.attempts[chunk] == (is_moved ? 2u : 1u));
      if (!is_moved) REQUIRE(plan.owners[chunk] == before.owners[chunk]);
      REQUIRE((excluded >> plan.owners[chunk] & 1) == 0);
      if (is_moved) ++received[plan.owners[chunk]];
    }
    std::vector<int64_t> of_remaining;
    for (int64_t index = 0; index < kContributors; ++index) {
      if ((excluded >> index & 1) == 0) of_remaining.push_back(received[size_t(index)]);
    }
    REQUIRE(spread(of_remaining) <= 1);
  }
}

TEST_CASE("plan: who cannot be dialled owns nothing, unless it is alone") {
  const Endpoint here = {"10.0.0.1", 4000};
  REQUIRE(possible_owners({{.peer = 0}}) == 0b1);
  REQUIRE(possible_owners({{.peer = 0}, {.peer = 1}}) == 0);
  const auto owners = possible_owners(
      {{.peer = 0}, {.peer = 1, .data = here}, {.peer = 2}, {.peer = 3, .data = here}});
  REQUIRE(owners == 0b1010);
  REQUIRE(make_direct_plan(4, owners, 1).owners == std::vector<uint8_t>{1, 3, 1, 3});
}

FragmentState state(uint64_t version, uint8_t digest) {
  FragmentState state{.version = version, .digest = {}};
  state.digest.bytes[0] = digest;
  return state;
}

TEST_CASE("lineage: the newest wins, then the majority, then the lowest peer") {
  const auto elect = [](std::vector<Claim> claims) { return elect_state(claims); };
  REQUIRE(!elect({}));
  REQUIRE(!elect({{0, {kNoVersion, {}}}}));
  REQUIRE(elect({{0, state(0, 1)}, {1, state(0, 1)}, {2, state(5, 2)}}) == state(5, 2));
  REQUIRE(elect({{0, state(5, 1)}, {1, state(5, 2)}, {2, state(5, 2)}}) == state(5, 2));
  REQUIRE(elect({{1, state(5, 9)}, {0, state(5, 3)}}) == state(5, 3));
  REQUIRE(elect({{0, state(5, 0)}, {1, state(5, 4)}}) == state(5, 4));  // One is not known yet.
  REQUIRE(elect({{0, {kNoVersion, {}}}, {1, state(2, 4)}}) == state(2, 4));
}

TEST_CASE("lineage: a majority is more than half of all who have the version") {
  const auto majority = [](std::vector<Claim> claims) { return majority_digest(claims, 5); };
  REQUIRE(majority({{0, state(5, 1)}, {1, state(5, 1)}, {2, state(5, 2)}}) == state(5, 1).digest);
  REQUIRE(!majority({{0, state(5, 1)}, {1, state(5, 2)}}));
  REQUIRE(!majority({{0, state(5, 1)}, {1, state(5, 0)}}));  // A vote is to come.
  REQUIRE(majority({{0, state(5, 1)}, {1, state(4, 2)}, {2, state(6, 2)}}) == state(5, 1).digest);
}

TEST_CASE("lineage: what is not known is equal to anything, another version is not") {
  REQUIRE(is_current(state(5, 1), state(5, 1)));
  REQUIRE(is_current(state(5, 0), state(5, 1)));
  REQUIRE(is_current(state(5, 1), state(5, 0)));
  REQUIRE(!is_current(state(5, 1), state(5, 2)));
  REQUIRE(!is_current(state(4, 1), state(5, 1)));
  REQUIRE(!is_current({kNoVersion, {}}, state(5, 1)));
}

}  // namespace
}  // namespace net
