// When machines are woken: at their deadlines, soon after whatever happens, and else never.
#include "net/wake_up.h"

#include "net/cluster.h"
#include "net/quiet_log.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST_CASE("a machine is woken at the earliest of its deadlines") {
  WakeUp wake_up;
  REQUIRE(wake_up.at() == Instant::max());
  wake_up.ask(seconds(9), seconds(1));
  wake_up.ask(seconds(7), seconds(1));
  wake_up.ask(seconds(8), seconds(1));
  REQUIRE(wake_up.at() == seconds(7));
  wake_up.begin_tick();
  REQUIRE(wake_up.at() == Instant::max());
}

TEST_CASE("a deadline that has come is looked at again, as is whatever a machine was told") {
  WakeUp wake_up;
  wake_up.ask(seconds(5), seconds(5));
  REQUIRE(wake_up.at() == seconds(5) + kReviewWithin);
  wake_up.begin_tick();
  wake_up.ask(seconds(60), seconds(6));
  wake_up.review(seconds(7));
  REQUIRE(wake_up.at() == seconds(7) + kReviewWithin);
}

// How often all machines were woken in so long.
uint64_t wake_ups(Cluster& cluster, Duration time) {
  const uint64_t before = cluster.world.tick_count();
  cluster.world.run_for(time);
  return cluster.world.tick_count() - before;
}

TEST_CASE("a coordinator to which nobody comes sleeps") {
  Cluster cluster(quick_cluster(1, 3));
  cluster.start_coordinator();
  cluster.world.run_for(minutes(1));
  REQUIRE(wake_ups(cluster, hours(10)) == 0);
}

TEST_CASE("between rounds machines wake for heartbeats, and for nothing else") {
  ClusterOptions options = quick_cluster(2, 3);
  options.trainer.step_time = hours(1);
  options.coordinator.heartbeat_interval = seconds(10);
  options.coordinator.dead_after = seconds(60);
  Cluster cluster(options);
  cluster.start_all();
  cluster.world.run_for(minutes(10));
  REQUIRE(cluster.coordinator().report().members.size() == 3);
  // A heartbeat and its answer: its member is woken to say it, and both look at what came of it.
  const uint64_t heartbeats = 3 * 60;
  const uint64_t count = wake_ups(cluster, minutes(10));
  REQUIRE(count >= heartbeats);
  REQUIRE(count <= 5 * heartbeats);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("a member that finds no coordinator wakes to dial, ever more seldom") {
  ClusterOptions options = quick_cluster(3, 2);
  options.member.coordinator_patience = hours(24);
  Cluster cluster(options);
  cluster.start_node(1);
  cluster.world.run_for(minutes(10));
  REQUIRE(wake_ups(cluster, hours(1)) < 3600);
}

}  // namespace
}  // namespace net
