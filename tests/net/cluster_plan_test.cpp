// Rounds by each plan, in a simulated world: the oracle in tests/net/fake_trainer.h checks every
// sum, and that all members hold the same.
#include "base/hash.h"
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Kind = CoordinatorOptions::Plan;

constexpr Kind kTrees[] = {Kind::kTwoLevel, Kind::kRing};

ClusterOptions planned_cluster(uint64_t seed, int64_t node_count, Kind plan) {
  ClusterOptions options = quick_cluster(seed, node_count);
  options.coordinator.plan = plan;
  return options;
}

std::map<WantKind, int64_t> count_chunks_by_kind(Cluster& cluster, Duration limit,
                                                 uint64_t version) {
  std::map<WantKind, int64_t> counts;
  cluster.world.on_delivery = [&counts, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                            Message& message) {
    before(from, to, message);
    if (message.type == MessageType::kChunk) ++counts[WantKind((*message.payload)[0])];
  };
  cluster.start_all();
  REQUIRE(cluster.reaches(version, limit));
  cluster.world.on_delivery = [](HostId, HostId, Message&) {};
  return counts;
}

int64_t all_weights(int64_t node_count) {
  int64_t all = 0;
  for (HostId node = 1; node <= node_count; ++node) all += weight_of(node);
  return all;
}

TEST_CASE("cluster plans: all parts are in the result, whatever way they go") {
  for (const Kind plan : {Kind::kDirect, Kind::kTwoLevel, Kind::kRing}) {
    for (const int64_t nodes : {2, 3, 4, 5, 9, 12}) {
      INFO(int(plan) << ", " << nodes << " nodes");
      Cluster cluster(planned_cluster(31, nodes, plan));
      const auto counts = count_chunks_by_kind(cluster, minutes(2), 3);
      for (const HostId node : cluster.running_nodes()) {
        for (const Committed& committed : cluster.node(node).commits()) {
          REQUIRE(committed.weight_tokens == all_weights(nodes));
          REQUIRE(int64_t(committed.members.size()) == nodes);
        }
      }
      REQUIRE(counts.contains(WantKind::kSubtotal) == (plan != Kind::kDirect && nodes > 2));
      REQUIRE(cluster.violations() == "");
      REQUIRE(cluster.coordinator().report().members_lost == 0);
    }
  }
}

TEST_CASE("cluster plans: a node that dies inside or outside of trees costs its own part") {
  base::Random random(77, 1);
  for (const Kind plan : kTrees) {
    for (int trial = 0; trial < 40; ++trial) {
      ClusterOptions options = planned_cluster(uint64_t(100 + trial), 5, plan);
      options.trainer.chunk_count = 10;
      options.trainer.padding_bytes = options.trainer.result_padding_bytes = 2000;
      options.network.bytes_per_second = 100e3;  // So that rounds take a while.
      Cluster cluster(options);
      // The victim dies before any one of the round's chunks is delivered, whoever gets it.
      const auto victim = HostId(1 + random.below(5));
      const auto moment = int64_t(1 + random.below(70));
      const bool is_silent = random.below(2) == 0;
      INFO(int(plan) << " trial " << trial << ": " << victim << " at " << moment << " "
                     << is_silent);
      int64_t count = 0;
      once_before(
          cluster,
          [&](HostId, HostId, const Message& m) {
            return m.type == MessageType::kChunk && m.authority.round == 2 && ++count == moment;
          },
          [&] {
            cluster.world.after(Duration(1), [&] { cluster.crash_node(victim, is_silent); });
          });
      cluster.start_all();
      REQUIRE(cluster.run_until([&] { return !cluster.is_running(victim); }, minutes(1)));
      REQUIRE(cluster.reaches(2, seconds(30)));
      for (const HostId node : cluster.running_nodes()) {
        const Committed* const committed = commit_of(cluster.node(node), 2);
        REQUIRE(committed != nullptr);
        REQUIRE(committed->members.size() >= 4);
        REQUIRE(cluster.node(node).catch_up_count() == 0);
      }
      cluster.start_node(victim);
      REQUIRE(cluster.all_active(minutes(1)));
      REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
      REQUIRE(cluster.violations() == "");
    }
  }
}

TEST_CASE("cluster plans: a round that is stuck goes on directly, and only the mute one is out") {
  for (const Kind plan : kTrees) {
    for (const WantKind mute_in : {WantKind::kContribution, WantKind::kSubtotal}) {
      INFO(int(plan) << " " << int(mute_in));
      constexpr HostId kMute = 2;
      Cluster cluster(planned_cluster(33, 5, plan));
      bool is_mute = false;
      cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                          Message& message) {
        before(from, to, message);
        const bool is_it = is_chunk_of(message, WantKind::kContribution) ||
                           is_chunk_of(message, WantKind::kSubtotal);
        if (is_mute && from == kMute && is_it) {
          message.type = MessageType::kGone;
          message.payload = encode(Gone{WantKind((*message.payload)[0])});
        }
      };
      cluster.start_all();
      REQUIRE(cluster.reaches(1, minutes(1)));
      is_mute = true;
      const auto version = cluster.highest_version();
      REQUIRE(cluster.run_until(
          [&] {
            return std::ranges::all_of(cluster.running_nodes(), [&](HostId node) {
              return node == kMute || cluster.node(node).versions().front() >= version + 2;
            });
          },
          minutes(2)));
      for (const HostId node : cluster.running_nodes()) {
        if (node == kMute) continue;
        REQUIRE(cluster.node(node).start_count() == 1);
        for (const Committed& committed : cluster.node(node).commits())
          REQUIRE(committed.contributed);
      }
      REQUIRE(cluster.violations() == "");
    }
  }
}

TEST_CASE("cluster plans: who cannot be dialled takes part") {
  for (const Kind plan : kTrees) {
    Cluster cluster(planned_cluster(34, 5, plan));
    for (HostId from = 0; from <= 5; ++from) {
      for (const HostId closed : {2, 4}) cluster.world.block_dials(from, closed);
    }
    const auto counts = count_chunks_by_kind(cluster, minutes(2), 3);
    REQUIRE(counts.contains(WantKind::kSubtotal));
    for (const HostId node : cluster.running_nodes())
      REQUIRE(cluster.node(node).commits().back().members.size() == 5);
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("cluster plans: a judged part is out of the subtotal and of the result") {
  for (const Kind plan : kTrees) {
    Cluster cluster(planned_cluster(35, 5, plan));
    cluster.start_all();
    REQUIRE(cluster.reaches(1, minutes(1)));
    cluster.node(3).be_absurd();
    REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
    for (const HostId node : cluster.running_nodes()) {
      REQUIRE(cluster.node(node).commits().back().weight_tokens == all_weights(5) - weight_of(3));
    }
    REQUIRE(cluster.violations() == "");
  }
}

}  // namespace
}  // namespace net
