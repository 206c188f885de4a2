// The coordinator is lost, forgets, or has too few members, in a simulated world as in
// cluster_test.cpp.
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

TEST_CASE("cluster: a member loses the coordinator in a round and finds it again") {
  for (const MessageType type : {MessageType::kOpen, MessageType::kChunk, MessageType::kCommit}) {
    Cluster cluster(quick_cluster(14, 3));
    once_before(
        cluster,
        [&](HostId, HostId to, const Message& m) {
          return to == 2 && m.type == type && m.authority.round == 3;
        },
        [&] { cluster.world.break_links(kCoordinatorHost, 2); });
    cluster.start_all();
    REQUIRE(cluster.reaches(6, minutes(1)));
    REQUIRE(cluster.node(2).start_count() >= 2);
    REQUIRE(cluster.coordinator().report().members_lost == 1);
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("cluster: a coordinator without memory finds the run where it was") {
  Cluster cluster(quick_cluster(15, 4));
  cluster.start_coordinator();
  for (const HostId node : {1, 2, 3}) cluster.start_node(node);
  REQUIRE(cluster.reaches(5, minutes(1)));
  const uint64_t version = cluster.highest_version();
  cluster.crash_coordinator();
  cluster.world.run_for(seconds(2));
  cluster.start_node(4, Cluster::Memory::kLost);
  cluster.start_coordinator();
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.lowest_version() >= version);
  REQUIRE(cluster.reaches(version + 3, minutes(1)));
  for (const HostId node : {1, 2, 3}) REQUIRE(cluster.node(node).catch_up_count() <= 1);
  REQUIRE(cluster.node(4).commits().front().round > version);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: a fresh node that comes first never becomes the truth") {
  ClusterOptions options = quick_cluster(16, 3);
  options.coordinator.start_members = 1;
  Cluster cluster(options);
  cluster.start_coordinator();
  cluster.start_node(1);
  cluster.start_node(2);
  REQUIRE(cluster.reaches(6, minutes(1)));
  cluster.crash_coordinator();
  cluster.crash_node(1);
  cluster.crash_node(2);
  cluster.start_coordinator();
  cluster.start_node(3);
  REQUIRE(
      cluster.reaches(1, minutes(1)));  // It trains on its own: nobody is there who knows better.
  cluster.start_node(1);
  cluster.start_node(2);
  REQUIRE(cluster.reaches(8, minutes(1)));
  REQUIRE(cluster.node(3).catch_up_count() >= 1);
  REQUIRE(cluster.node(1).commits().front().round >= 7);
  REQUIRE(cluster.node(3).states() == cluster.node(1).states());
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: no coordinator for too long ends a node") {
  Cluster cluster(quick_cluster(17, 2));
  cluster.start_all();
  REQUIRE(cluster.reaches(2, minutes(1)));
  cluster.crash_coordinator();
  cluster.world.run_for(seconds(50));
  REQUIRE(!cluster.node(1).stopped());
  cluster.world.run_for(seconds(30));
  REQUIRE(cluster.node(1).stopped());
  REQUIRE(cluster.node(1).stopped()->restart_makes_sense);
}

TEST_CASE("cluster: below members_min nothing is committed") {
  ClusterOptions options = quick_cluster(18, 2);
  options.coordinator.members_min = 2;
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(1)));
  once_before(
      cluster,
      [](HostId, HostId to, const Message& m) { return to == 2 && m.type == MessageType::kOpen; },
      [&] { cluster.crash_node(2); });
  REQUIRE(cluster.run_until([&] { return !cluster.is_running(2); }, minutes(1)));
  const uint64_t version = cluster.node(1).version(0);
  cluster.world.run_for(minutes(1));
  REQUIRE(cluster.node(1).version(0) == version);
  cluster.start_node(2);
  REQUIRE(cluster.reaches(version + 3, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

}  // namespace
}  // namespace net
