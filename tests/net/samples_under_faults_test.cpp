// Whole swarms that train: what the model has seen is counted. No sample twice, and only what died
// with a node, or on its way to it, never.
#include <algorithm>
#include <map>
#include <set>

#include "net/coordinator.h"
#include "net/quiet_log.h"
#include "net/sample_node.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr HostId kCoordinator = 0;
constexpr int64_t kAskedMax = 4 * int64_t(SampleNode::kStepsPerRound);

class SampleSwarm {
 public:
  SampleSwarm(uint64_t seed, int64_t node_count)
      : world({.seed = seed}), random(seed, 3), node_count_(node_count) {
    quiet_log();
    for (HostId host = 0; host <= node_count; ++host) world.add_host(host, address_of(host));
    start_coordinator();
  }

  void start_coordinator() {
    CoordinatorOptions options;
    options.run_name = "samples";
    options.chunk_counts = {1};
    options.term = ++term_ * 1000;
    options.start_members = 1;
    options.start_grace = options.ready_grace = seconds(5);
    options.dead_after = seconds(4);
    options.stall_after = seconds(6);
    coordinator = Coordinator::create(options);
    world.turn_on(kCoordinator, *coordinator);
  }
  void start(HostId node) {
    MemberOptions options;
    options.run_name = "samples";
    options.node_name = fmt::format("node-{}", node);
    options.node_key = uint64_t(node);
    options.coordinator = address_of(kCoordinator);
    options.advertise = {"", 4000};
    nodes[node] = std::make_unique<SampleNode>(world, node, batch_of(node), disks_[node]);
    world.turn_on(node, nodes[node]->make_member(options));
  }
  void start_all() {
    for (HostId node = 1; node <= node_count_; ++node) {
      if (!is_on(node)) start(node);
    }
  }
  void crash(HostId node) {
    world.turn_off(node);
    disks_[node] = nodes[node]->disk();
    nodes.erase(node);
  }
  bool is_on(HostId node) const { return nodes.contains(node); }

  // All that live come to this version.
  bool reach(uint64_t version) {
    return world.run_until(
        [&] {
          return std::ranges::all_of(nodes,
                                     [&](const auto& n) { return n.second->version() >= version; });
        },
        minutes(30));
  }
  // All are members, know how much is handed out, and wait for none.
  bool agree() {
    return world.run_until(
        [&] {
          return std::ranges::all_of(nodes, [&](const auto& n) {
            return n.second->is_active() && !n.second->is_asking() &&
                   n.second->heard() == coordinator->report().samples;
          });
        },
        minutes(5));
  }
  uint64_t version() const { return newest().version(); }

  struct Count {
    int64_t trained = 0, several = 0, missing = 0;
  };
  // Of all that were handed out: what the model has seen, or will when those who live are heard.
  Count count() const {
    std::map<uint64_t, int> uses;
    for (const uint64_t sample : newest().state()) ++uses[sample];
    for (const auto& [host, node] : nodes) {
      for (const uint64_t sample : node->progress()) ++uses[sample];
    }
    Count count{.trained = int64_t(uses.size())};
    for (const auto& [host, node] : nodes) {
      for (const uint64_t sample : node->left()) ++uses[sample];
    }
    for (const auto& [sample, times] : uses) count.several += times > 1;
    count.missing = int64_t(coordinator->report().samples) - int64_t(uses.size());
    return count;
  }

  static uint64_t batch_of(HostId node) { return 1 + uint64_t(node) % 4; }

  World world;
  base::Random random;
  std::unique_ptr<Coordinator> coordinator;
  std::map<HostId, std::unique_ptr<SampleNode>> nodes;

 private:
  static Endpoint address_of(HostId host) { return {fmt::format("10.0.0.{}", host + 1), 4000}; }
  const SampleNode& newest() const {
    return *std::ranges::max_element(nodes, {}, [](const auto& n) {
              return n.second->version();
            })->second;
  }

  const int64_t node_count_;
  uint32_t term_ = 0;
  std::map<HostId, SampleNode::Disk> disks_;
};

}  // namespace

TEST_CASE("samples: nodes that come one after another train on each once") {
  const int64_t node_count = GENERATE(1, 3, 8, 64);
  SampleSwarm swarm(5, node_count);
  for (HostId node = 1; node <= node_count; ++node) {
    swarm.start(node);
    if (node_count < 10) swarm.world.run_for(seconds(2));
  }
  REQUIRE(swarm.reach(10));
  REQUIRE(swarm.agree());
  const auto count = swarm.count();
  REQUIRE(count.several == 0);
  REQUIRE(count.missing == 0);
  // Before the last round nothing is left out.
  const int64_t in_hands = 2 * kAskedMax * node_count;
  REQUIRE(count.trained >= int64_t(swarm.coordinator->report().samples) - in_hands);
  if (node_count > 1) return;
  const auto& trained = swarm.nodes[1]->state();
  for (size_t i = 0; i < trained.size(); ++i) REQUIRE(trained[i] == i);
}

TEST_CASE("samples: only what died with a node, or on its way, is missing") {
  const int64_t node_count = GENERATE(3, 8);
  const uint64_t seed = GENERATE(range(1, 13));
  INFO("seed " << seed << ", " << node_count << " nodes");
  SampleSwarm swarm(seed, node_count);
  swarm.start_all();
  // The first one lives and is heard, so that the run never goes back.
  int64_t deaths = 0, breaks = 0;
  for (int fault = 0; fault < 40; ++fault) {
    swarm.world.run_for(milliseconds(swarm.random.below(2500)));
    const auto node = 2 + HostId(swarm.random.below(uint64_t(node_count) - 1));
    if (!swarm.is_on(node)) {
      swarm.start(node);
    } else if (swarm.random.below(2) == 0) {
      swarm.crash(node);
      ++deaths;
    } else {
      swarm.world.break_links(kCoordinator, node);
      ++breaks;
    }
  }
  swarm.start_all();
  REQUIRE(swarm.agree());
  REQUIRE(swarm.reach(swarm.version() + 3));  // Whoever was cut off last is found out.
  REQUIRE(swarm.agree());
  const auto before = swarm.count();
  REQUIRE(swarm.reach(swarm.version() + 5));
  REQUIRE(swarm.agree());
  const auto count = swarm.count();
  REQUIRE(deaths > 0);
  REQUIRE(count.several == 0);
  REQUIRE(count.trained > before.trained);
  // A node that dies has what it was given twice at most, in its hands or trained on in vain.
  REQUIRE(count.missing <= deaths * 3 * kAskedMax + breaks * kAskedMax);
  REQUIRE(count.missing == before.missing);  // No fault, no loss.
}

TEST_CASE("samples: a coordinator that is started again goes on where the run is") {
  const int64_t node_count = GENERATE(1, 3, 8);
  const bool do_nodes_die = GENERATE(false, true);
  SampleSwarm swarm(11, node_count);
  swarm.start_all();
  for (int restart = 0; restart < 5; ++restart) {
    REQUIRE(swarm.agree());
    REQUIRE(swarm.reach(swarm.version() + 3));
    REQUIRE(swarm.agree());
    const uint64_t reached = swarm.coordinator->report().samples;
    swarm.world.turn_off(kCoordinator);
    if (do_nodes_die) {
      for (HostId node = 1; node <= node_count; ++node) swarm.crash(node);
    }
    swarm.start_coordinator();
    swarm.start_all();
    REQUIRE(swarm.agree());
    if (!do_nodes_die) REQUIRE(swarm.coordinator->report().samples >= reached);
  }
  const auto count = swarm.count();
  REQUIRE(count.several == 0);
  if (node_count == 1) REQUIRE(count.missing == 0);  // What was lost was handed out again.
  // The others may have been in a round whose end they missed.
  if (!do_nodes_die) REQUIRE(count.missing <= 5 * (node_count - 1) * kAskedMax);
}

TEST_CASE("samples: what a coordinator without memory hands out is void when the run comes back") {
  SampleSwarm swarm(17, 3);
  swarm.start(1);
  swarm.start(2);
  REQUIRE(swarm.reach(6));
  REQUIRE(swarm.agree());
  swarm.world.turn_off(kCoordinator);
  swarm.crash(1);
  swarm.crash(2);
  swarm.start_coordinator();
  swarm.start(3);  // It has nothing, and thinks that it is the first.
  REQUIRE(swarm.reach(2));
  REQUIRE(swarm.nodes[3]->left().front() < 100);
  swarm.start(1);
  swarm.start(2);
  REQUIRE(swarm.agree());
  REQUIRE(swarm.reach(12));
  const auto& state = swarm.nodes[1]->state();
  // What the third trained on meanwhile it has brought along; nothing else came twice.
  std::map<uint64_t, int> uses;
  for (const uint64_t sample : state) ++uses[sample];
  const auto several = std::ranges::count_if(uses, [](const auto& use) { return use.second > 1; });
  REQUIRE(several <= int64_t(SampleNode::kStepsPerRound * SampleSwarm::batch_of(3)));
}

}  // namespace net
