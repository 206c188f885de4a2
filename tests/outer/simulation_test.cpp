// The simulator against closed forms, and against what was published of other people's runs and
// simulators.
#include "outer/simulation.h"

#include "fixture.h"
#include "support/catch.h"

using namespace outer;
using outer::testing::make_layout;

namespace {

// `fragments` of equal size on `count` equal nodes with steps of a second. The line is `share` of
// what keeps up.
SimulationOptions equal_nodes(int64_t count, int64_t fragments, int64_t inner_steps, double share) {
  SimulationOptions options{.inner_steps = inner_steps};
  options.contribution_bytes.assign(size_t(fragments), 900'000);
  options.result_bytes.assign(size_t(fragments), 500'000);
  options.nodes.resize(size_t(count));
  const double floor = simulate(options).floor_bytes_per_second;
  for (SimulatedNode& node : options.nodes) node.bytes_per_second = share * floor;
  return options;
}

// INTELLECT-1: 14 nodes that each took 22.8 s for a step of a 10.2B model, H = 100.
SimulationOptions intellect_1(double bits_per_element, int64_t fragments, double rate_mbit) {
  SimulationOptions options{.inner_steps = 100};
  options.contribution_bytes.assign(size_t(fragments),
                                    int64_t(10.2e9 / double(fragments) * bits_per_element / 8));
  options.result_bytes = options.contribution_bytes;
  options.nodes.assign(14, {.step_seconds = 22.8, .bytes_per_second = rate_mbit * 1e6 / 8});
  return options;
}

double floor_mbit(const SimulationOptions& options) {
  return simulate(options).floor_bytes_per_second * 8 / 1e6;
}

}  // namespace

TEST_CASE("blocking costs what the exchange takes", "[outer][simulation]") {
  const int64_t fragments = GENERATE(1, 4);
  const double share = GENERATE(0.5, 1.0, 3.0);
  SimulationOptions options = equal_nodes(4, fragments, 20, share);
  options.round_trip_seconds = 0.1;
  const SimulationResult result = simulate(options);
  const double exchange = 20 / share / double(fragments) + 4 * 0.1;
  REQUIRE(result.exposed_seconds_per_round == Approx(exchange));
  REQUIRE(result.utilisation == Approx(20 / (20 + double(fragments) * exchange)));
  REQUIRE(result.floor_bytes_per_second == Approx(2 * 0.75 * 700'000 * double(fragments) / 20));
  REQUIRE(result.bytes_per_day ==
          Approx(result.floor_bytes_per_second * 86'400 * result.utilisation));
  REQUIRE(result.steps_per_day == Approx(86'400 * result.utilisation));
}

TEST_CASE("streaming hides an exchange that its line can carry", "[outer][simulation]") {
  SimulationOptions options = equal_nodes(4, 8, 64, 1.5);
  options.overlap_steps_max = 12;
  options.round_trip_seconds = 0.2;
  const SimulationResult result = simulate(options);
  REQUIRE(result.utilisation == 1);
  REQUIRE(result.exposed_seconds_per_round == 0);
}

TEST_CASE("streaming over a line that is too slow gets the line's share", "[outer][simulation]") {
  const double share = GENERATE(0.2, 0.7, 0.95);
  SimulationOptions options = equal_nodes(4, 8, 64, share);
  options.overlap_steps_max = 12;
  REQUIRE(simulate(options).utilisation == Approx(share).epsilon(1e-9));
}

TEST_CASE("what is longer than the overlap is waited for", "[outer][simulation]") {
  // A round each 8 steps, that takes 6 s of the line and may take 4.
  SimulationOptions options = equal_nodes(4, 8, 64, 8.0 / 6);
  options.overlap_steps_max = 4;
  const SimulationResult result = simulate(options);
  REQUIRE(result.exposed_seconds_per_round == Approx(2));
  REQUIRE(result.utilisation == Approx(0.8));
}

TEST_CASE("all wait for the slow node, and for the slow line", "[outer][simulation]") {
  const int64_t overlap = GENERATE(0, 6);
  SimulationOptions options = equal_nodes(4, 4, 16, 1e6);
  options.overlap_steps_max = overlap;
  options.nodes[2].step_seconds = 1.25;
  const SimulationResult steps = simulate(options);
  for (const size_t fast : {0, 1, 3})
    REQUIRE(steps.node_utilisation[fast] == Approx(0.8).epsilon(1e-4));
  REQUIRE(steps.node_utilisation[2] == Approx(1).epsilon(1e-4));
  REQUIRE(steps.utilisation == Approx(0.85).epsilon(1e-4));

  options.nodes[2] = {
      .step_seconds = 1,
      .bytes_per_second = 0.5 * simulate(equal_nodes(4, 4, 16, 1)).floor_bytes_per_second};
  for (const double share : simulate(options).node_utilisation)
    REQUIRE(share == Approx(overlap == 0 ? 1.0 / 3 : 0.5).epsilon(1e-4));
}

TEST_CASE("a large fragment is hidden by the turns of the small ones", "[outer][simulation]") {
  SimulationOptions options = equal_nodes(4, 8, 64, 1.2);
  options.contribution_bytes[0] = 1'800'000;
  options.contribution_bytes[1] = 0;
  options.overlap_steps_max = 4;
  const double tight = simulate(options).utilisation;
  options.overlap_steps_max = 12;
  REQUIRE(tight < 0.99);
  REQUIRE(simulate(options).utilisation == 1);
}

TEST_CASE("what cannot be simulated is refused", "[outer][simulation]") {
  SimulationOptions options = equal_nodes(2, 1, 10, 1);
  options.overlap_steps_max = 10;
  REQUIRE_THROWS_AS(simulate(options), base::Error);
  options.overlap_steps_max = 0;
  options.nodes[1].bytes_per_second = 0;
  REQUIRE_THROWS_AS(simulate(options), base::Error);
  options.nodes.clear();
  REQUIRE_THROWS_AS(simulate(options), base::Error);
}

TEST_CASE("blocking as INTELLECT-1 did it", "[outer][simulation]") {
  // Its all-reduce took 469 s and 83 % of the time was training (arXiv 2412.01152).
  SimulationOptions options = intellect_1(8, 1, 1);
  for (SimulatedNode& node : options.nodes)
    node.bytes_per_second = simulate(options).floor_bytes_per_second * 2280 / 469;
  REQUIRE(simulate(options).utilisation == Approx(0.829).epsilon(1e-3));
  // By arithmetic, 90, 95 and 99 % need 598, 1263 and 6580 Mbit/s.
  REQUIRE(simulate(intellect_1(8, 1, 598)).utilisation == Approx(0.90).epsilon(1e-3));
  REQUIRE(simulate(intellect_1(8, 1, 1263)).utilisation == Approx(0.95).epsilon(1e-3));
  REQUIRE(simulate(intellect_1(8, 1, 6580)).utilisation == Approx(0.99).epsilon(1e-3));
}

TEST_CASE("floors and bills of a 10B run", "[outer][simulation]") {
  REQUIRE(floor_mbit(intellect_1(8, 14, 100)) == Approx(67).epsilon(0.01));
  REQUIRE(floor_mbit(intellect_1(4.0625, 14, 100)) == Approx(34).epsilon(0.01));
  SimulationOptions fast = intellect_1(8, 14, 1000);
  for (SimulatedNode& node : fast.nodes) node.step_seconds = 15.2;
  REQUIRE(floor_mbit(fast) == Approx(100).epsilon(0.01));

  // Through the config: int8 with its scales, 42 blocks, embedding and head.
  std::vector<int64_t> units(44, 218'112'000);
  units.front() = units.back() = 525'336'576;
  OuterConfig config;
  config.fragments = 14;
  SimulationOptions options = simulation_of(config, make_layout(units));
  REQUIRE(options.contribution_bytes.size() == 14);
  options.nodes.assign(14, {.step_seconds = 22.8, .bytes_per_second = 1e9});
  options.overlap_steps_max = 5;
  REQUIRE(simulate(options).bytes_per_day == Approx(724e9).epsilon(0.005));
}

TEST_CASE("overlap needs what a simulator of layers says, within a step", "[outer][simulation]") {
  // Mbit/s for 99 % by a simulator that reproduces the table of Streaming DiLoCo (arXiv
  // 2501.18512, table 4), where a layer's exchange begins inside its step's backward and ends
  // before its forward. Here it goes from boundary to boundary: with as much overlap it needs
  // more, with one step more less.
  struct Row {
    double bits;
    int64_t overlap;
    double mbit;
  };
  const Row row = GENERATE(Row{8, 2, 179}, Row{8, 5, 85}, Row{4.0625, 2, 91}, Row{4.0625, 5, 43},
                           Row{2.0625, 5, 22});
  INFO(row.bits << " bits, overlap " << row.overlap);
  SimulationOptions options = intellect_1(row.bits, 14, row.mbit);
  options.overlap_steps_max = row.overlap;
  REQUIRE(simulate(options).utilisation < 0.99);
  options.overlap_steps_max = row.overlap + 1;
  REQUIRE(simulate(options).utilisation > 0.99);
}
