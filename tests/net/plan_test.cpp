// Plans and elections are pure functions: all small cases are tried.
#include "net/exchange/plan.h"

#include <algorithm>

#include "net/coordinator/lineage.h"
#include "support/catch.h"

namespace net {
namespace {

std::vector<int64_t> shares(const std::vector<uint8_t>& owners, int64_t contributor_count) {
  std::vector<int64_t> shares(size_t(contributor_count), 0);
  for (const uint8_t owner : owners) ++shares.at(owner);
  return shares;
}

Plan direct_plan(std::vector<uint8_t> owners) {
  return make_plan({.contributors = {}, .owners = std::move(owners)}, 1);
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
      const auto owners = make_owners(chunks, first(contributors));
      REQUIRE(int64_t(owners.size()) == chunks);
      REQUIRE(spread(shares(owners, contributors)) <= 1);
    }
  }
}

TEST_CASE("plan: only the chunks of the excluded move, and evenly") {
  constexpr int64_t kContributors = 6;
  for (ContributorMask excluded = 0; excluded + 1 < 1u << kContributors; ++excluded) {
    Plan plan = direct_plan(make_owners(25, first(kContributors)));
    const Plan before = plan;
    const auto moves = move_chunks(plan, first(kContributors) & ~excluded);
    apply_moves(plan, moves, 2);
    std::vector<int64_t> received(size_t(kContributors), 0);
    for (size_t chunk = 0; chunk < plan.trees.size(); ++chunk) {
      const bool is_moved = (excluded >> before.trees[chunk].owner & 1) != 0;
      REQUIRE(plan.attempts[chunk] == (is_moved ? 2u : 1u));
      if (!is_moved) REQUIRE(plan.trees[chunk].owner == before.trees[chunk].owner);
      REQUIRE((excluded >> plan.trees[chunk].owner & 1) == 0);
      if (is_moved) ++received[plan.trees[chunk].owner];
    }
    std::vector<int64_t> of_remaining;
    for (int64_t index = 0; index < kContributors; ++index) {
      if ((excluded >> index & 1) == 0) of_remaining.push_back(received[size_t(index)]);
    }
    REQUIRE(spread(of_remaining) <= 1);
  }
}

// Contributors with these peers; those in `closed` cannot be dialled.
Open an_open(int64_t contributor_count, ContributorMask closed, int64_t chunk_count) {
  Open open;
  for (int64_t index = 0; index < contributor_count; ++index) {
    const bool is_closed = contains(closed, index);
    open.contributors.push_back(
        {.peer = PeerId(index), .weight_tokens = 1, .data = {is_closed ? "" : "10.0.0.1", 4000}});
  }
  open.owners = make_owners(chunk_count, possible_owners(open.contributors));
  return open;
}

// What must hold for whatever tree: every contributor's part comes to the owner once, over nodes
// that can be dialled.
void check_tree(const Tree& tree, int64_t contributor_count, ContributorMask closed) {
  ContributorMask all = ContributorMask{1} << tree.owner;
  for (int64_t index = 0; index < contributor_count; ++index) {
    const ContributorMask children = tree.children(index, contributor_count);
    REQUIRE((all & children) == 0);
    all |= children;
    REQUIRE(tree.is_inner(index) == (index != tree.owner && children != 0));
    if (children != 0) REQUIRE(!contains(closed, index));
    ContributorMask below = ContributorMask{1} << index;
    for (int64_t child = 0; child < contributor_count; ++child) {
      if (!contains(children, child)) continue;
      REQUIRE((below & tree.below(child, contributor_count)) == 0);
      below |= tree.below(child, contributor_count);
    }
    REQUIRE(tree.below(index, contributor_count) == below);
  }
  REQUIRE(all == first(contributor_count));
  REQUIRE(tree.below(tree.owner, contributor_count) == all);
}

TEST_CASE("plan: a direct one has only leaves") {
  const Plan plan = make_plan(an_open(5, 0b10, 9), 3);
  for (const Tree& tree : plan.trees) {
    REQUIRE(tree.is_direct());
    check_tree(tree, 5, 0b10);
    REQUIRE(tree.children(tree.owner, 5) == (first(5) & ~(ContributorMask{1} << tree.owner)));
  }
  REQUIRE(std::ranges::count(plan.attempts, 3u) == 9);
}

TEST_CASE("plan: trees hold every contributor once, whoever cannot be dialled") {
  for (int64_t count = 3; count <= kMembersMax; count += count < 8 ? 1 : 7) {
    for (const ContributorMask closed :
         {ContributorMask{0}, ContributorMask{0b1}, ContributorMask{0x5555'5555'5555'5554},
          first(count) & ~ContributorMask{0b100}}) {
      Open open = an_open(count, closed, 2 * count + 1);
      open.plan = PlanKind::kTwoLevel;
      for (int64_t regions = 1; regions <= count; regions += 1 + count / 8) {
        open.places.clear();
        for (int64_t index = 0; index < count; ++index)
          open.places.push_back(uint8_t(index % regions));
        for (const Tree& tree : make_plan(open, 1).trees) {
          check_tree(tree, count, closed);
          for (int64_t index = 0; index < count; ++index) REQUIRE(tree.depth(index) <= 2);
        }
      }
      open.plan = PlanKind::kRing;
      for (int64_t index = 0; index < count; ++index)
        open.places[size_t(index)] = uint8_t(count - 1 - index);
      for (const Tree& tree : make_plan(open, 1).trees) check_tree(tree, count, closed);
    }
  }
}

TEST_CASE("plan: a region's heads take turns, and one subtotal of it goes to the owner") {
  Open open = an_open(8, 0, 24);
  open.plan = PlanKind::kTwoLevel;
  open.places = {0, 1, 0, 1, 0, 1, 0, 1};
  std::vector<int64_t> turns(8, 0);
  for (const Tree& tree : make_plan(open, 1).trees) {
    for (int64_t index = 0; index < 8; ++index) {
      const bool is_far = open.places[size_t(index)] != open.places[tree.owner];
      REQUIRE(tree.depth(index) == (index == tree.owner               ? 0
                                    : is_far && !tree.is_inner(index) ? 2
                                                                      : 1));
      turns[size_t(index)] += tree.is_inner(index);
    }
  }
  REQUIRE(std::ranges::count(turns, 3) == 8);
}

TEST_CASE("plan: in a ring each brings its part to the next one") {
  Open open = an_open(4, 0b10, 3);
  open.plan = PlanKind::kRing;
  open.places = {0, 1, 2, 3};
  REQUIRE(open.owners == std::vector<uint8_t>{0, 2, 3});
  const Plan plan = make_plan(open, 1);
  REQUIRE(plan.trees[0].parents == std::vector<uint8_t>{0, 2, 3, 0});
  REQUIRE(plan.trees[1].parents == std::vector<uint8_t>{2, 2, 2, 0});
  REQUIRE(plan.trees[2].parents == std::vector<uint8_t>{2, 2, 3, 3});
}

TEST_CASE("plan: what cannot be a tree is direct") {
  Open open = an_open(4, 0b10, 4);
  open.plan = PlanKind::kRing;
  open.places = {0, 1, 2, 3};
  open.owners = {1, 1, 1, 1};  // Whom nobody can dial.
  REQUIRE(make_direct(make_plan(open, 1)).empty());
}

TEST_CASE("plan: where one is out who stood inside, its chunks are summed directly") {
  Open open = an_open(4, 0, 4);
  open.plan = PlanKind::kRing;
  open.places = {0, 1, 2, 3};
  Plan plan = make_plan(open, 1);
  REQUIRE(make_direct(plan).size() == 4);
  // Of chunk i the owner is i, and i + 1 is a leaf: 1 is inside for 2 and 3.
  const auto moves = move_chunks(plan, first(4) & ~ContributorMask{0b10}, 0b10);
  REQUIRE(moves.size() == 3);
  apply_moves(plan, moves, 2);
  REQUIRE(plan.attempts == std::vector<uint32_t>{1, 2, 2, 2});
  REQUIRE(!plan.trees[0].is_direct());
  for (const size_t chunk : {1, 2, 3}) REQUIRE(plan.trees[chunk].is_direct());
  REQUIRE(plan.trees[1].owner != 1);
  REQUIRE(plan.trees[2].owner == 2);
  REQUIRE(move_chunks(plan, first(4) & ~ContributorMask{0b10}, 0b10).empty());
}

TEST_CASE("plan: shares are in proportion, and interleaved") {
  const double all[] = {3, 1, 0, 2};
  const auto owners = make_owners(60, first(4), all);
  REQUIRE(shares(owners, 4) == std::vector<int64_t>{30, 10, 0, 20});
  for (size_t begin = 0; begin < owners.size(); begin += 6) {
    const std::vector<uint8_t> six(owners.begin() + int64_t(begin),
                                   owners.begin() + int64_t(begin + 6));
    REQUIRE(shares(six, 4) == std::vector<int64_t>{3, 1, 0, 2});
  }
  const double none[] = {0, 0, 0, 0};
  REQUIRE(shares(make_owners(8, first(4), none), 4) == std::vector<int64_t>{2, 2, 2, 2});
}

TEST_CASE("plan: who cannot be dialled owns nothing, unless it is alone") {
  const Endpoint here = {"10.0.0.1", 4000};
  REQUIRE(possible_owners({{.peer = 0}}) == 0b1);
  REQUIRE(possible_owners({{.peer = 0}, {.peer = 1}}) == 0);
  const auto owners = possible_owners(
      {{.peer = 0}, {.peer = 1, .data = here}, {.peer = 2}, {.peer = 3, .data = here}});
  REQUIRE(owners == 0b1010);
  REQUIRE(make_owners(4, owners) == std::vector<uint8_t>{1, 3, 1, 3});
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
