// The node that coordinates is lost, and another one takes the run over, in a simulated world as in
// cluster_test.cpp. Each version of a fragment is made once, whoever coordinates.
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

// Node 1 is where the run begins.
ClusterOptions fail_over_cluster(uint64_t seed, int64_t node_count) {
  ClusterOptions options = quick_cluster(seed, node_count);
  options.home = 1;
  options.coordinator.fail_over = true;
  options.trainer.has_one_history = true;
  return options;
}

// Samples that are handed out in one term, and again in a later one.
class SamplesSeen {
 public:
  explicit SamplesSeen(Cluster& cluster) {
    cluster.world.on_delivery = [this, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                           Message& message) {
      before(from, to, message);
      if (message.type == MessageType::kSamples) hear(*decode<Samples>(*message.payload), message);
    };
  }
  uint32_t term = 0;
  uint64_t end = 0, earlier_end = 0, again = 0;

 private:
  void hear(const Samples& samples, const Message& message) {
    if (samples.count == 0) return;
    if (std::exchange(term, message.authority.term) != message.authority.term) earlier_end = end;
    again += samples.first < earlier_end;
    end = std::max(end, samples.first + samples.count);
  }
};

TEST_CASE("fail over: a node coordinates beside its training") {
  Cluster cluster(fail_over_cluster(1, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(5, minutes(1)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{1});
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("fail over: another node takes the run over within ten seconds") {
  Cluster cluster(fail_over_cluster(2, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(4, minutes(1)));
  cluster.crash_node(1);
  const uint64_t version = cluster.highest_version();
  REQUIRE(cluster.reaches(version + 1, seconds(10)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{2});
  cluster.start_node(1);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.reaches(version + 4, minutes(1)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{2});
  REQUIRE(cluster.violations() == "");
}

// The coordinator's node dies in every moment of a round; what it committed anywhere stays.
TEST_CASE("fail over: no moment of a round loses a commit") {
  for (const MessageType type : {MessageType::kReady, MessageType::kOpen, MessageType::kDone,
                                 MessageType::kCommit, MessageType::kApplied}) {
    for (const int64_t count : {1, 2, 3}) {
      ClusterOptions options = fail_over_cluster(3 + uint64_t(count), 4);
      options.trainer.asks_for_samples = true;
      Cluster cluster(options);
      const SamplesSeen samples(cluster);
      auto left = std::make_shared<int64_t>(count);
      once_before(
          cluster,
          [=](HostId, HostId, const Message& m) {
            return m.type == type && m.authority.round == 4 && --*left == 0;
          },
          [&] { cluster.crash_node(1); });
      cluster.start_all();
      INFO(int(type) << ", the one of number " << count);
      REQUIRE(cluster.run_until([&] { return !cluster.is_running(1); }, minutes(1)));
      REQUIRE(cluster.reaches(7, minutes(1)));
      cluster.start_node(1);
      REQUIRE(cluster.all_active(minutes(1)));
      REQUIRE(cluster.reaches(10, minutes(1)));
      REQUIRE(samples.earlier_end > 0);
      REQUIRE(samples.again == 0);
      REQUIRE(cluster.violations() == "");
    }
  }
}

TEST_CASE("fail over: a round that one has heard committed is committed by the next coordinator") {
  Cluster cluster(fail_over_cluster(8, 4));
  std::optional<base::Digest> results;
  auto heard = std::make_shared<int64_t>(0);
  once_before(
      cluster,
      [=, &results](HostId, HostId, const Message& m) {
        if (m.type != MessageType::kCommit || m.authority.round != 4) return false;
        results = decode<Commit>(*m.payload)->results;
        return ++*heard == 2;  // One has it, and it is on its way to the others.
      },
      [&] { cluster.crash_node(1); });
  cluster.start_all();
  REQUIRE(cluster.run_until([&] { return !cluster.is_running(1); }, minutes(1)));
  const auto others = cluster.running_nodes();
  REQUIRE(cluster.reaches(6, minutes(1)));
  for (const HostId node : others) {
    REQUIRE(commit_of(cluster.node(node), 4));
    REQUIRE(commit_of(cluster.node(node), 4)->result_digest == *results);
    REQUIRE(cluster.node(node).catch_up_count() == 0);  // Nobody had to fetch it.
  }
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("fail over: a minority commits nothing, and merges again") {
  ClusterOptions options = fail_over_cluster(9, 5);
  options.member.coordinator_patience = minutes(3);  // The minute of the cut, and to come back.
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(4, minutes(1)));
  // The coordinator's node and another one on one side.
  for (const HostId a : {1, 2}) {
    for (const HostId b : {3, 4, 5}) cluster.world.cut(a, b);
  }
  cluster.world.run_for(minutes(1));
  const uint64_t version = cluster.node(1).version(0);
  REQUIRE(cluster.node(3).version(0) > version + 5);
  cluster.world.heal_all();
  REQUIRE(cluster.all_active(minutes(2)));
  REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
  REQUIRE(cluster.node(1).states() == cluster.node(3).states());
  REQUIRE(cluster.coordinating().size() == 1);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("fail over: of two nodes the tie-breaker goes on, or the one with the coordinator") {
  for (const bool has_tie_breaker : {false, true}) {
    for (const HostId dead : {1, 2}) {
      ClusterOptions options = fail_over_cluster(10, 2);
      if (has_tie_breaker) options.coordinator.tie_breaker = "node-2";
      Cluster cluster(options);
      cluster.start_all();
      REQUIRE(cluster.reaches(4, minutes(1)));
      cluster.crash_node(dead);
      const HostId other = 3 - dead;
      const uint64_t version = cluster.node(other).version(0);
      const bool goes_on = has_tie_breaker ? other == 2 : other == 1;
      INFO("node " << dead << " dies, tie-breaker " << has_tie_breaker);
      REQUIRE(cluster.run_until([&] { return cluster.node(other).version(0) > version + 2; },
                                seconds(20)) == goes_on);
      cluster.start_node(dead);
      REQUIRE(cluster.all_active(minutes(1)));
      REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
      REQUIRE(cluster.violations() == "");
    }
  }
}

TEST_CASE("fail over: a node that leaves hands the run over") {
  for (const int64_t count : {2, 3}) {
    Cluster cluster(fail_over_cluster(11, count));
    cluster.start_all();
    REQUIRE(cluster.reaches(4, minutes(1)));
    cluster.node(1).leave("its operator says so");
    cluster.world.run_for(seconds(2));
    cluster.crash_node(1);
    const uint64_t version = cluster.highest_version();
    REQUIRE(cluster.reaches(version + 3, seconds(20)));
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("fail over: a newcomer may ask any node, and a run that all have left goes on") {
  Cluster cluster(fail_over_cluster(12, 4));
  for (const HostId node : {1, 2, 3}) cluster.start_node(node);
  REQUIRE(cluster.run_until([&] { return cluster.lowest_version() >= 4; }, minutes(1)));
  MemberOptions options = cluster.member_options(4);
  options.coordinator = Cluster::address(3);
  cluster.change_member_options(4, options);
  cluster.start_node(4);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.coordinating() == std::vector<HostId>{1});
  const uint64_t version = cluster.highest_version();
  for (const HostId node : {1, 2, 3, 4}) cluster.crash_node(node);
  for (const HostId node : {4, 3, 2, 1}) cluster.start_node(node);
  REQUIRE(cluster.all_active(minutes(2)));
  REQUIRE(cluster.lowest_version() >= version);
  REQUIRE(cluster.reaches(version + 3, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("fail over: a coordinator on a machine of its own is followed by a node") {
  ClusterOptions options = fail_over_cluster(13, 3);
  options.home = kCoordinatorHost;
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(4, minutes(1)));
  REQUIRE(cluster.coordinating().empty());
  cluster.crash_coordinator();
  const uint64_t version = cluster.highest_version();
  REQUIRE(cluster.reaches(version + 1, seconds(10)));
  REQUIRE(cluster.coordinating().size() == 1);
  // Started again it knows that the run is with others, and sends them who comes to it.
  cluster.start_coordinator();
  cluster.crash_node(3);
  cluster.start_node(3, Cluster::Memory::kLost);
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.coordinator().report().members.empty());
  REQUIRE(cluster.reaches(version + 4, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

// As a container that is started again has.
TEST_CASE("fail over: a coordinator that nobody follows any more is told when the run is done") {
  ClusterOptions options = fail_over_cluster(15, 3);
  options.home = kCoordinatorHost;
  options.coordinator.steps_total = 40;
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(1)));
  cluster.crash_coordinator();
  REQUIRE(cluster.reaches(cluster.highest_version() + 1, seconds(10)));
  cluster.start_coordinator();
  cluster.world.run_for(seconds(2));
  REQUIRE(!cluster.coordinator().report().finished);
  REQUIRE(cluster.run_until([&] { return cluster.coordinator().report().finished; }, minutes(2)));
  REQUIRE(cluster.lowest_version() >= 7);
}

TEST_CASE("fail over: a coordinator without a memory is told where the run goes on") {
  ClusterOptions options = fail_over_cluster(14, 4);
  options.home = kCoordinatorHost;
  options.coordinator.start_members = 2;  // One alone would begin anew.
  Cluster cluster(options);
  cluster.start_coordinator();
  for (const HostId node : {1, 2, 3}) cluster.start_node(node);
  REQUIRE(cluster.run_until([&] { return cluster.lowest_version() >= 4; }, minutes(1)));
  cluster.crash_coordinator();
  const uint64_t version = cluster.highest_version();
  REQUIRE(cluster.run_until([&] { return cluster.lowest_version() >= version + 2; }, seconds(20)));
  cluster.forget_coordinators_log();
  cluster.start_coordinator();
  cluster.start_node(4);  // Knows that address and no other.
  REQUIRE(cluster.all_active(seconds(30)));
  REQUIRE(cluster.coordinating().size() == 1);
  REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

}  // namespace
}  // namespace net
