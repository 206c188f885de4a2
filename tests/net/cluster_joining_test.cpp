// Nodes that join, are slow, stuck, silent or wrong, in a simulated world as in cluster_test.cpp.
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST_CASE("cluster: a newcomer joins while rounds go on") {
  ClusterOptions options = quick_cluster(5, 4);
  options.coordinator.start_members = 3;
  Cluster cluster(options);
  cluster.start_coordinator();
  for (const HostId node : {1, 2, 3}) cluster.start_node(node);
  REQUIRE(cluster.reaches(4, minutes(1)));
  const uint64_t version = cluster.highest_version();
  cluster.start_node(4);
  REQUIRE(cluster.all_active(seconds(20)));
  REQUIRE(cluster.node(4).last_start_step() >= version * 5);
  REQUIRE(cluster.reaches(version + 4, minutes(1)));
  REQUIRE(cluster.node(4).commits().back().contributed);
  REQUIRE(cluster.node(4).commits().back().members.size() == 4);
  for (const HostId node : {1, 2, 3}) REQUIRE(cluster.node(node).catch_up_count() == 0);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: a newcomer's donor dies") {
  for (const bool is_silent : {false, true}) {
    ClusterOptions options = quick_cluster(6, 4);
    options.coordinator.start_members = 3;
    options.trainer.padding_bytes = 20000;
    options.trainer.results_kept = 0;
    options.trainer.step_time = milliseconds(1000);
    options.network.bytes_per_second = 100e3;
    Cluster cluster(options);
    cluster.start_coordinator();
    for (const HostId node : {1, 2, 3}) cluster.start_node(node);
    REQUIRE(cluster.reaches(2, minutes(2)));
    HostId donor = 0;
    cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                        Message& message) {
      before(from, to, message);
      if (donor != 0 || !is_chunk_of(message, WantKind::kState)) return;
      donor = from;
      cluster.crash_node(from, is_silent);
    };
    cluster.start_node(4);
    REQUIRE(cluster.run_until([&] { return donor != 0; }, minutes(1)));
    REQUIRE(cluster.all_active(minutes(1)));
    REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(2)));
    REQUIRE(cluster.violations() == "");
  }
}

// Three nodes that make a round every 1.2 s or so, and a fourth one for which the state of 3 MB
// takes 10 s or longer.
ClusterOptions outrunning_cluster(uint64_t seed) {
  ClusterOptions options = quick_cluster(seed, 4);
  options.coordinator.start_members = 3;
  options.trainer.chunk_count = options.trainer.block_count = 30;
  options.trainer.block_padding_bytes = 100'000;
  options.network.bytes_per_second = 100e3;
  return options;
}

struct ChunkCount {
  int64_t blocks = 0, results = 0;
};
// Of what comes to a node from now on, to catch up.
std::shared_ptr<ChunkCount> count_chunks(Cluster& cluster, HostId node) {
  auto count = std::make_shared<ChunkCount>();
  cluster.world.on_delivery = [=, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (to != node) return;
    count->blocks += is_chunk_of(message, WantKind::kState);
    count->results += is_chunk_of(message, WantKind::kPast);
  };
  return count;
}

TEST_CASE("cluster: a newcomer gets in while rounds are quicker than its transfer") {
  for (const int64_t results_kept : {0, 4}) {
    ClusterOptions options = outrunning_cluster(20);
    options.trainer.results_kept = results_kept;
    Cluster cluster(options);
    MemberOptions thin = cluster.member_options(4);
    thin.links_per_peer_max = 1;
    cluster.change_member_options(4, thin);
    cluster.start_coordinator();
    for (const HostId node : {1, 2, 3}) cluster.start_node(node);
    REQUIRE(cluster.reaches(12, minutes(1)));
    const auto count = count_chunks(cluster, 4);
    cluster.start_node(4);
    const uint64_t version = cluster.highest_version();
    const bool is_in = cluster.run_until([&] { return cluster.node(4).is_active(); }, minutes(1));
    REQUIRE(is_in == (results_kept > 0));
    REQUIRE(cluster.highest_version() > version + 5);  // Rounds went on meanwhile.
    if (!is_in) continue;
    REQUIRE(count->blocks == 30);
    REQUIRE(count->results > 30);
    REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
    REQUIRE(cluster.node(4).commits().back().contributed);
    for (const HostId node : {1, 2, 3}) REQUIRE(cluster.node(node).catch_up_count() == 0);
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("cluster: a donor dies while results are replayed") {
  for (const bool is_silent : {false, true}) {
    Cluster cluster(outrunning_cluster(21));
    cluster.start_coordinator();
    for (const HostId node : {1, 2, 3}) cluster.start_node(node);
    REQUIRE(cluster.reaches(12, minutes(1)));
    HostId donor = 0;
    cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                        Message& message) {
      before(from, to, message);
      if (donor != 0 || !is_chunk_of(message, WantKind::kPast)) return;
      donor = from;
      cluster.crash_node(from, is_silent);
    };
    cluster.start_node(4);
    REQUIRE(cluster.run_until([&] { return donor != 0; }, minutes(1)));
    REQUIRE(cluster.run_until([&] { return cluster.node(4).is_active(); }, minutes(2)));
    REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("cluster: who comes back soon fetches what it missed, and who comes late the state") {
  for (const bool is_late : {false, true}) {
    ClusterOptions options = outrunning_cluster(22);
    options.coordinator.start_members = 4;
    Cluster cluster(options);
    cluster.start_all();
    REQUIRE(cluster.reaches(12, minutes(1)));
    cluster.crash_node(4);
    const uint64_t missed = is_late ? 6 : 3;
    REQUIRE(cluster.reaches(cluster.highest_version() + missed, minutes(1)));
    const auto count = count_chunks(cluster, 4);
    cluster.start_node(4);
    REQUIRE(cluster.run_until([&] { return cluster.node(4).is_active(); }, minutes(1)));
    REQUIRE(count->blocks == (is_late ? 30 : 0));
    REQUIRE(count->results > 0);
    REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
    REQUIRE(cluster.violations() == "");
  }
}

TEST_CASE("cluster: a wrong block is found by its digest, and only it is fetched again") {
  ClusterOptions options = outrunning_cluster(23);
  options.trainer.step_time = seconds(1);
  Cluster cluster(options);
  cluster.start_coordinator();
  for (const HostId node : {1, 2, 3}) cluster.start_node(node);
  REQUIRE(cluster.reaches(12, minutes(3)));
  const auto count = count_chunks(cluster, 4);
  cluster.node(2).spoil_blocks(1);
  cluster.start_node(4);
  REQUIRE(cluster.run_until([&] { return cluster.node(4).is_active(); }, minutes(1)));
  REQUIRE(count->blocks == 31);
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: the last one that has the state dies while another fetches it") {
  ClusterOptions options = quick_cluster(7, 2);
  options.coordinator.start_members = 1;
  options.trainer.results_kept = 0;
  options.coordinator.start_grace = minutes(2);
  options.trainer.padding_bytes = 20000;
  options.network.bytes_per_second = 100e3;
  Cluster cluster(options);
  cluster.start_coordinator();
  cluster.start_node(1);
  REQUIRE(cluster.reaches(3, minutes(1)));
  once_before(
      cluster, [](HostId, HostId, const Message& m) { return is_chunk_of(m, WantKind::kState); },
      [&] { cluster.crash_node(1); });
  cluster.start_node(2);
  REQUIRE(cluster.run_until([&] { return !cluster.is_running(1); }, minutes(1)));
  // Nobody has a state that could be trained. The newcomer must not make one up.
  cluster.world.run_for(seconds(15));
  REQUIRE(!cluster.node(2).is_active());
  cluster.start_node(1);
  REQUIRE(cluster.all_active(minutes(2)));
  REQUIRE(cluster.reaches(5, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: who cannot get the state gives up and is started again") {
  ClusterOptions options = quick_cluster(8, 2);
  options.coordinator.start_members = 1;
  options.trainer.results_kept = 0;
  options.trainer.padding_bytes = 20000;
  options.network.bytes_per_second = 100e3;
  Cluster cluster(options);
  cluster.start_coordinator();
  cluster.start_node(1);
  REQUIRE(cluster.reaches(3, minutes(1)));
  once_before(
      cluster, [](HostId, HostId, const Message& m) { return is_chunk_of(m, WantKind::kState); },
      [&] { cluster.crash_node(1); });
  cluster.start_node(2);
  REQUIRE(cluster.run_until([&] { return cluster.node(2).stopped().has_value(); }, minutes(2)));
  REQUIRE(cluster.node(2).stopped()->restart_makes_sense);
  cluster.restart_stopped();
  REQUIRE(cluster.all_active(minutes(1)));  // From what it has; the other one never comes back.
  REQUIRE(cluster.reaches(2, minutes(1)));
  REQUIRE(cluster.violations() == "");
}

// --- Slow, stuck and silent members.

TEST_CASE("cluster: a late member gets the results and keeps its work") {
  Cluster cluster(quick_cluster(9, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(1, minutes(1)));
  cluster.node(3).set_step_time(seconds(4));
  REQUIRE(cluster.reaches(6, minutes(3)));
  const auto& commits = cluster.node(3).commits();
  REQUIRE(std::ranges::count(commits, false, &Committed::contributed) >= 2);
  REQUIRE(cluster.node(3).catch_up_count() == 0);
  REQUIRE(cluster.node(3).start_count() == 1);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: a member that is alive and stuck is left out of the round, not of the run") {
  Cluster cluster(quick_cluster(10, 4));
  cluster.start_all();
  REQUIRE(cluster.reaches(2, minutes(1)));
  for (const HostId other : {1, 2, 4}) cluster.world.cut(3, other);
  const auto others_reach = [&](uint64_t version) {
    return cluster.run_until(
        [&] {
          return std::ranges::all_of(std::vector<HostId>{1, 2, 4}, [&](HostId node) {
            return cluster.node(node).version(0) >= version;
          });
        },
        seconds(20));
  };
  REQUIRE(others_reach(3));
  REQUIRE(others_reach(5));
  REQUIRE(cluster.coordinator().report().members_lost == 0);
  cluster.world.heal_all();
  REQUIRE(cluster.all_active(minutes(1)));
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
  for (const HostId node : {1, 2, 4}) REQUIRE(cluster.node(node).catch_up_count() == 0);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: a stopped member is given up after dead_after and comes back") {
  Cluster cluster(quick_cluster(11, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(2, minutes(1)));
  once_before(
      cluster,
      [](HostId from, HostId, const Message& m) {
        return from == 2 && is_chunk_of(m, WantKind::kContribution);
      },
      [&] { cluster.world.freeze(2); });
  const auto others_go_on = [&] {
    return cluster.node(1).version(0) >= 6 && cluster.node(3).version(0) >= 6;
  };
  REQUIRE(cluster.run_until(others_go_on, seconds(30)));
  REQUIRE(cluster.coordinator().report().members_lost == 1);
  REQUIRE(cluster.node(2).version(0) < 6);
  cluster.world.thaw(2);
  REQUIRE(cluster.reaches(9, minutes(1)));
  REQUIRE(cluster.node(2).catch_up_count() == 1);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: a member whose state differs is repaired from the others") {
  Cluster cluster(quick_cluster(12, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(3, minutes(1)));
  cluster.node(2).spoil_state(0);
  // The oracle must see it: a round has parts of two different states.
  REQUIRE(cluster.reaches(cluster.highest_version() + 1, minutes(1)));
  REQUIRE(cluster.run_until([&] { return cluster.node(2).catch_up_count() > 0; }, seconds(10)));
  REQUIRE(cluster.violations() != "");
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
  REQUIRE(cluster.run_until(
      [&] {
        const auto states = cluster.node(1).states();
        return states == cluster.node(2).states() && states == cluster.node(3).states();
      },
      seconds(10)));
  REQUIRE(cluster.node(2).catch_up_count() == 1);
  REQUIRE(cluster.node(1).catch_up_count() == 0);
  REQUIRE(cluster.node(3).catch_up_count() == 0);
}

TEST_CASE("cluster: bad chunks cost the link, not the round") {
  Cluster cluster(quick_cluster(13, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(2, minutes(1)));
  cluster.node(2).spoil_contributions(3);
  REQUIRE(cluster.reaches(6, minutes(1)));
  for (const HostId node : {1, 2, 3}) REQUIRE(cluster.node(node).catch_up_count() == 0);
  REQUIRE(cluster.coordinator().report().members_lost == 0);
  REQUIRE(cluster.violations() == "");
}

}  // namespace
}  // namespace net
