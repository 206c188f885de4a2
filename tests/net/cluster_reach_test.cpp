// Nodes that cannot be dialled, in a simulated world as in cluster_test.cpp: they dial the others.
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

// Of their last commits, all have the work of all.
void require_all_contribute(Cluster& cluster, int64_t node_count) {
  for (HostId node = 1; node <= node_count; ++node) {
    const Committed& last = cluster.node(node).commits().back();
    REQUIRE(last.contributed);
    REQUIRE(int64_t(last.members.size()) == node_count);
    REQUIRE(std::ranges::count(last.has_ours, 0) == 0);
  }
}

TEST_CASE("reach: all but one cannot be dialled, and all contribute") {
  for (const int64_t closed_count : {1, 2, 3}) {
    Cluster cluster(quick_cluster(uint64_t(10 + closed_count), 4));
    for (HostId node = 1; node <= closed_count; ++node) cluster.world.close_port(node);
    std::set<HostId> dialled_by;
    cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                        Message& message) {
      before(from, to, message);
      if (message.type == MessageType::kOffer) dialled_by.insert(from);
    };
    cluster.start_all();
    REQUIRE(cluster.reaches(6, minutes(2)));
    require_all_contribute(cluster, 4);
    REQUIRE(int64_t(dialled_by.size()) == closed_count);
    for (HostId node = 1; node <= 4; ++node) REQUIRE(cluster.node(node).catch_up_count() == 0);
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("reach: links of one that cannot be dialled break again and again") {
  Cluster cluster(quick_cluster(21, 3));
  cluster.world.close_port(1);
  int64_t chunk_count = 0;
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    const bool is_its = from == 1 && is_chunk_of(message, WantKind::kContribution);
    if (is_its && ++chunk_count % 3 == 0) cluster.world.break_links(1, to);
  };
  cluster.start_all();
  REQUIRE(cluster.reaches(6, minutes(3)));
  REQUIRE(chunk_count > 6);
  require_all_contribute(cluster, 3);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: the owner dies, and one that cannot be dialled brings its part to the next") {
  Cluster cluster(quick_cluster(22, 4));
  for (const HostId node : {1, 2}) cluster.world.close_port(node);
  once_before(
      cluster,
      [&](HostId from, HostId to, const Message& message) {
        return from == 1 && to == 3 && is_chunk_of(message, WantKind::kContribution);
      },
      [&] { cluster.crash_node(3); });
  cluster.start_all();
  REQUIRE(cluster.run_until([&] { return cluster.node(1).version(0) >= 4; }, minutes(3)));
  for (const HostId node : {1, 2, 4}) {
    const Committed* const first = commit_of(cluster.node(node), 1);
    REQUIRE(first);
    REQUIRE(first->contributed);
  }
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: a newcomer gets the state from one that cannot be dialled") {
  ClusterOptions options = quick_cluster(23, 2);
  options.coordinator.start_members = 1;
  Cluster cluster(options);
  cluster.world.close_port(1);
  cluster.start_coordinator();
  cluster.start_node(1);
  REQUIRE(cluster.reaches(5, minutes(1)));
  cluster.start_node(2);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.node(2).last_start_step() >= 25);
  REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
  require_all_contribute(cluster, 2);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: nobody can be dialled, then one can") {
  Cluster cluster(quick_cluster(24, 3));
  for (HostId node = 1; node <= 3; ++node) cluster.world.close_port(node);
  cluster.start_all();
  REQUIRE(cluster.all_active(minutes(1)));
  cluster.world.run_for(minutes(1));
  REQUIRE(cluster.highest_version() == 0);
  for (HostId node = 1; node <= 3; ++node) REQUIRE(!cluster.node(node).contributes());
  cluster.world.unblock_dials();
  for (const HostId node : {1, 2}) cluster.world.close_port(node);
  REQUIRE(cluster.reaches(4, minutes(3)));
  require_all_contribute(cluster, 3);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: a port is closed and opened while rounds go on") {
  Cluster cluster(quick_cluster(25, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(1)));
  for (int64_t time = 0; time < 3; ++time) {
    cluster.world.close_port(2);
    for (HostId other = 0; other <= 3; ++other) {
      if (other != 2) cluster.world.break_links(other, 2);
    }
    REQUIRE(cluster.reaches(cluster.highest_version() + 4, minutes(3)));
    require_all_contribute(cluster, 3);
    cluster.world.unblock_dials();
    REQUIRE(cluster.reaches(cluster.highest_version() + 4, minutes(3)));
    require_all_contribute(cluster, 3);
  }
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: sums are looked at again where some cannot be dialled") {
  ClusterOptions options = quick_cluster(26, 5);
  options.member.audit_chunks = 2;
  Cluster cluster(options);
  for (const HostId node : {1, 2}) cluster.world.close_port(node);
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(2)));
  cluster.node(3).lie_about_sums(true);
  REQUIRE(cluster.run_until([&] { return !cluster.node(3).contributes(); }, minutes(5)));
  for (const HostId node : {1, 2, 4, 5}) REQUIRE(cluster.node(node).contributes());
}

TEST_CASE("reach: the coordinating node dies, and those that cannot be dialled go on") {
  ClusterOptions options = quick_cluster(27, 4);
  options.coordinator.fail_over = true;
  options.home = 3;
  Cluster cluster(options);
  for (const HostId node : {1, 2}) cluster.world.close_port(node);
  for (HostId node = 1; node <= 4; ++node) cluster.start_node(node);
  REQUIRE(cluster.reaches(3, minutes(2)));
  cluster.crash_node(3);
  const uint64_t version = cluster.highest_version();
  REQUIRE(cluster.run_until([&] { return cluster.node(1).version(0) >= version + 4; }, minutes(3)));
  REQUIRE(cluster.node(1).commits().back().members.size() == 3);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("reach: who cannot be dialled and was left alone gives way to who comes home") {
  ClusterOptions options = quick_cluster(28, 3);
  options.coordinator.fail_over = true;
  options.coordinator.members_min = 1;
  options.trainer.has_one_history = true;
  options.home = 1;
  Cluster cluster(options);
  cluster.world.close_port(3);
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(2)));
  for (const HostId node : {2, 1}) {
    cluster.node(node).leave("its operator says so");
    cluster.world.run_for(seconds(5));
    cluster.crash_node(node);
  }
  const uint64_t version = cluster.highest_version();
  REQUIRE(cluster.run_until([&] { return cluster.node(3).version(0) >= version + 4; }, minutes(2)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{3});
  cluster.start_node(1);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{1});
  REQUIRE(cluster.reaches(version + 8, minutes(2)));
  cluster.start_node(2);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.violations() == "");
}

}  // namespace
}  // namespace net
