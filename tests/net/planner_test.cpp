// What is found in measured ways, and which plan follows from it.
#include "net/coordinator/planner.h"

#include <algorithm>

#include "net/coordinator/regions.h"
#include "support/catch.h"

namespace net {
namespace {

using PlanOf = CoordinatorOptions::Plan;

std::vector<Contributor> swarm_of(int64_t count) {
  std::vector<Contributor> all;
  for (int64_t index = 0; index < count; ++index) {
    all.push_back({.peer = PeerId(index),
                   .weight_tokens = 1,
                   .data = {"10.0.0.1", 4000},
                   .node_key = 100 + uint64_t(index)});
  }
  return all;
}

CoordinatorOptions planner_options(PlanOf plan) {
  return {.chunk_counts = {96},
          .plan = plan,
          .round_bytes = {{.contribution = 1'000'000, .result = 1'000'000}}};
}

// Ways between all of them, as `way` says.
template <class WayOf>
void measure(Planner& planner, int64_t count, const WayOf& way) {
  for (int64_t from = 0; from < count; ++from) {
    for (int64_t to = 0; to < count; ++to) {
      if (from != to) planner.on_measured(100 + uint64_t(from), 100 + uint64_t(to), way(from, to));
    }
  }
}

// Even numbers are here and odd ones there, with a thin line between that all ways share.
Way two_sites(int64_t from, int64_t to) {
  return (from + to) % 2 == 0 ? Way{0.001, 100e6} : Way{0.1, 1e6};
}

Open chosen(Planner& planner, int64_t count) {
  Open open{.contributors = swarm_of(count)};
  planner.choose(open, 0);
  REQUIRE(decode<Open>(*encode(open)).ok());
  return open;
}

Ways ways_between(int64_t count, const std::function<Way(int64_t, int64_t)>& way) {
  PathTable table;
  for (int64_t from = 0; from < count; ++from) {
    for (int64_t to = 0; to < count; ++to) {
      if (from != to) table.take(100 + uint64_t(from), 100 + uint64_t(to), way(from, to));
    }
  }
  return table.between(swarm_of(count));
}

TEST_CASE("planner: where nothing is known all is direct and in equal parts") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  const Open open = chosen(planner, 6);
  REQUIRE(open.plan == PlanKind::kDirect);
  REQUIRE(open.places.empty());
  REQUIRE(open.estimated_ms == 0);
  for (int64_t index = 0; index < 6; ++index)
    REQUIRE(std::ranges::count(open.owners, uint8_t(index)) == 16);
}

TEST_CASE("planner: one pair that is not known is enough for that") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 6,
          [](int64_t from, int64_t to) { return from + to == 1 ? Way{} : two_sites(from, to); });
  REQUIRE(chosen(planner, 6).plan == PlanKind::kDirect);
}

TEST_CASE("planner: over a thin line between two sites it takes two levels") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 8, two_sites);
  const Open open = chosen(planner, 8);
  REQUIRE(open.plan == PlanKind::kTwoLevel);
  REQUIRE(open.places == std::vector<uint8_t>{0, 1, 0, 1, 0, 1, 0, 1});
  REQUIRE(open.estimated_ms > 0);
  // With half as much to carry on each of these ways, not quite half of the time.
  const CoordinatorOptions direct = planner_options(PlanOf::kDirect);
  Planner other(direct);
  measure(other, 8, two_sites);
  REQUIRE(chosen(other, 8).estimated_ms > open.estimated_ms * 5 / 4);
}

TEST_CASE("planner: between equals it stays direct") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 8, [](int64_t, int64_t) { return Way{0.05, 1e6}; });
  const Open open = chosen(planner, 8);
  REQUIRE(open.plan == PlanKind::kDirect);
  // 2 * 7 / 8 of a megabyte at 7 MB/s, and a round trip.
  REQUIRE(open.estimated_ms == 300);
}

TEST_CASE("planner: a plan that got stuck is left alone for a while") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 8, two_sites);
  REQUIRE(chosen(planner, 8).plan == PlanKind::kTwoLevel);
  planner.on_stuck();
  for (int round = 0; round < 8; ++round) REQUIRE(chosen(planner, 8).plan == PlanKind::kDirect);
  REQUIRE(chosen(planner, 8).plan == PlanKind::kTwoLevel);
}

TEST_CASE("planner: small changes change nothing") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  const auto with_factor = [](double factor) {
    return [=](int64_t from, int64_t to) {
      Way way = two_sites(from, to);
      if (from == 0) way.bytes_per_second *= factor;
      return way;
    };
  };
  measure(planner, 8, with_factor(0.5));
  const Open first = chosen(planner, 8);
  measure(planner, 8, with_factor(0.55));
  const Open second = chosen(planner, 8);
  REQUIRE(first.owners == second.owners);
  REQUIRE(first.plan == second.plan);
}

TEST_CASE("planner: a guard that needs all parts keeps a round direct") {
  CoordinatorOptions options = planner_options(PlanOf::kAuto);
  options.guard = CoordinatorOptions::Guard::kElements;
  Planner planner(options);
  measure(planner, 8, two_sites);
  REQUIRE(chosen(planner, 8).plan == PlanKind::kDirect);
}

// A chain of sites: only neighbours have good ways.
Way chain(int64_t from, int64_t to) {
  const int64_t steps = std::abs(from - to);
  const bool is_near = steps == 1 || steps == 7;
  return is_near ? Way{0.02, 50e6} : Way{0.02, 1e6};
}

TEST_CASE("planner: where only neighbours have good ways it takes a ring, unless lengths count") {
  CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 8, chain);
  REQUIRE(chosen(planner, 8).plan == PlanKind::kRing);
  options.guard = CoordinatorOptions::Guard::kLengths;
  Planner careful(options);
  measure(careful, 8, chain);
  REQUIRE(chosen(careful, 8).plan == PlanKind::kDirect);
}

TEST_CASE("planner: the operator's word needs no measurement, but weights") {
  for (const auto& [word, plan] : {std::pair(PlanOf::kTwoLevel, PlanKind::kTwoLevel),
                                   std::pair(PlanOf::kRing, PlanKind::kRing)}) {
    const CoordinatorOptions options = planner_options(word);
    Planner planner(options);
    REQUIRE(chosen(planner, 5).plan == plan);
    REQUIRE(chosen(planner, 2).plan == PlanKind::kDirect);
    Open open{.contributors = swarm_of(5)};
    for (Contributor& one : open.contributors) one.weight_tokens = 0;
    planner.choose(open, 0);
    REQUIRE(open.plan == PlanKind::kDirect);
  }
}

TEST_CASE("planner: owners have shares by the slower direction of their lines") {
  const CoordinatorOptions options = planner_options(PlanOf::kAuto);
  Planner planner(options);
  measure(planner, 4, [](int64_t from, int64_t) { return Way{0.01, from == 1 ? 1e6 : 3e6}; });
  const Open open = chosen(planner, 4);
  const auto share = [&](uint8_t owner) { return std::ranges::count(open.owners, owner); };
  REQUIRE(share(1) < share(0) / 2);
  REQUIRE(share(1) > 0);
  REQUIRE(share(0) + share(1) + share(2) + share(3) == 96);
}

TEST_CASE("regions: single linkage finds those that are near each other") {
  REQUIRE(regions_of(ways_between(6, two_sites)) == std::vector<uint8_t>{0, 1, 0, 1, 0, 1});
  const auto three = [](int64_t from, int64_t to) {
    return Way{from / 2 == to / 2 ? 0.01 : 0.08, 1e6};
  };
  REQUIRE(regions_of(ways_between(6, three)) == std::vector<uint8_t>{0, 0, 1, 1, 2, 2});
  const auto even = [](int64_t from, int64_t to) {
    return Way{0.02 + 0.01 * double(from * to % 3)};
  };
  REQUIRE(regions_of(ways_between(6, even)).empty());
  const auto in_one_house = [](int64_t from, int64_t to) {
    return Way{from % 2 == to % 2 ? 0.0001 : 0.004, 1e6};
  };
  REQUIRE(regions_of(ways_between(6, in_one_house)).empty());
  REQUIRE(regions_of(ways_between(2, two_sites)).empty());
}

TEST_CASE("regions: a ring goes over good ways") {
  for (const int64_t count : {3, 8, 64}) {
    // Neighbours by a permutation.
    const auto place = [&](int64_t index) { return index * 5 % count; };
    const auto way = [&](int64_t from, int64_t to) {
      const int64_t steps = (place(from) - place(to) + count) % count;
      return steps == 1 || steps == count - 1 ? Way{0.01, 9e6} : Way{0.01, 1e6};
    };
    const auto places = ring_of(ways_between(count, way));
    std::vector<int64_t> order(places.size());
    for (size_t index = 0; index < places.size(); ++index)
      order[places[index]] = place(int64_t(index));
    for (size_t at = 0; at < order.size(); ++at) {
      const int64_t steps = (order[at] - order[(at + 1) % order.size()] + count) % count;
      REQUIRE((steps == 1 || steps == count - 1));
    }
  }
}

}  // namespace
}  // namespace net
