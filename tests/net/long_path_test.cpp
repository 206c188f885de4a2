// Nodes far from each other, where one link to a peer is not enough; each link of the simulated
// network has a rate of its own.
#include <algorithm>

#include "net/cluster.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

ClusterOptions far_apart(uint64_t seed, int64_t node_count) {
  ClusterOptions options = quick_cluster(seed, node_count);
  options.trainer.chunk_count = 64;
  options.trainer.padding_bytes = 128 * 1024;
  options.network.latency_min = milliseconds(99);
  options.network.latency_max = milliseconds(100);
  options.network.bytes_per_second = 1e6;
  return options;
}

double round_seconds(Cluster& cluster) {
  return cluster.node(1).commits().back().seconds;
}

TEST_CASE("long path: rounds become faster with more links, and stay right") {
  Cluster cluster(far_apart(31, 2));
  cluster.start_all();
  REQUIRE(cluster.reaches(1, minutes(2)));
  const double first = round_seconds(cluster);
  REQUIRE(cluster.reaches(12, minutes(10)));
  REQUIRE(cluster.world.link_count(1, 2) >= 8);  // Of both directions.
  REQUIRE(round_seconds(cluster) < 0.4 * first);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("long path: with one link allowed, one is used") {
  ClusterOptions options = far_apart(32, 2);
  Cluster cluster(options);
  for (const HostId node : {1, 2}) {
    MemberOptions member = cluster.member_options(node);
    member.links_per_peer_max = 1;
    cluster.change_member_options(node, member);
  }
  cluster.start_all();
  REQUIRE(cluster.reaches(6, minutes(10)));
  REQUIRE(cluster.world.link_count(1, 2) == 2);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("long path: links that break one after the other cost no round") {
  ClusterOptions options = far_apart(33, 3);
  // A few seconds without a chunk can come to pass here.
  options.coordinator.stall_after = CoordinatorOptions().stall_after;
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(6, minutes(10)));
  REQUIRE(cluster.world.link_count(1, 2) > 2);
  const uint64_t before = cluster.highest_version();
  for (int i = 0; i < 200; ++i) {
    cluster.world.run_for(milliseconds(300));
    const auto a = HostId(1 + cluster.world.random().below(3));
    const auto b = HostId(1 + cluster.world.random().below(3));
    if (a != b) cluster.world.break_one_link(a, b);
  }
  REQUIRE(cluster.highest_version() > before + 2);
  REQUIRE(cluster.coordinator().report().members_lost == 0);
  for (const HostId node : {1, 2, 3}) {
    for (const Committed& committed : cluster.node(node).commits())
      REQUIRE(committed.members.size() == 3);  // Nobody was left out of a round.
  }
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("long path: a node that dies and comes back with many links to it") {
  Cluster cluster(far_apart(34, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(6, minutes(10)));
  cluster.crash_node(2);
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(5)));
  cluster.start_node(2, Cluster::Memory::kLost);
  REQUIRE(cluster.all_active(minutes(5)));
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(5)));
  REQUIRE(cluster.violations() == "");
}

}  // namespace
}  // namespace net
