// Coordinator and members together, in a simulated world (tests/net/simulator.h), with the faults
// named one by one. Every commit is checked by the oracle in tests/net/fake_trainer.h; a scenario
// says what must come of it.
#include "net/cluster_moments.h"
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST_CASE("cluster: nodes train together and stay equal") {
  Cluster cluster(quick_cluster(1, 4));
  cluster.start_all();
  REQUIRE(cluster.reaches(10, minutes(2)));
  REQUIRE(cluster.violations() == "");
  const CoordinatorReport report = cluster.coordinator().report();
  REQUIRE(report.members_lost == 0);
  REQUIRE(report.members_joined == 4);
  for (const HostId node : cluster.running_nodes()) {
    REQUIRE(cluster.node(node).catch_up_count() == 0);
    const Committed& committed = cluster.node(node).commits().front();
    REQUIRE(committed.contributed);
    REQUIRE(committed.members.size() == 4);
    REQUIRE(committed.weight_tokens == weight_of(1) + weight_of(2) + weight_of(3) + weight_of(4));
    REQUIRE(committed.bytes_sent > 0);
    REQUIRE(committed.bytes_received > 0);
    REQUIRE(committed.seconds > 0);
  }
}

TEST_CASE("cluster: one node alone needs no network") {
  Cluster cluster(quick_cluster(2, 1));
  cluster.start_all();
  bool has_data = false;
  once_before(
      cluster, [](HostId from, HostId to, const Message&) { return from != 0 && to != 0; },
      [&] { has_data = true; });
  REQUIRE(cluster.reaches(5, minutes(1)));
  REQUIRE(!has_data);
  REQUIRE(cluster.violations() == "");
}

// --- A node dies in round 3, at every moment of it. It was contributor and owner.

struct Death {
  const char* when;
  // Before which delivery, by what has been delivered in the round so far.
  std::function<bool(HostId from, HostId to, const Message&)> is_the_moment;
  bool is_in_round;  // Its contribution counts, at least in some chunks.
};

TEST_CASE("cluster: a node that dies costs its own part and nothing else") {
  constexpr HostId kVictim = 2;
  constexpr uint64_t kRound = 3;
  constexpr int64_t kChunks = 6;  // Of which two belong to each of three nodes.
  int64_t count = 0;
  const auto nth = [&](int64_t n, auto is_it) {
    return [&count, n, is_it](HostId from, HostId to, const Message& message) {
      if (message.authority.round != kRound || !is_it(from, to, message)) return false;
      return ++count == n;
    };
  };
  const auto from_victim = [](WantKind kind) {
    return [kind](HostId from, HostId, const Message& m) {
      return from == kVictim && is_chunk_of(m, kind);
    };
  };
  const auto to_victim = [](WantKind kind) {
    return [kind](HostId, HostId to, const Message& m) {
      return to == kVictim && is_chunk_of(m, kind);
    };
  };
  const auto done = [](HostId from, HostId, const Message& m) {
    return from == kVictim && m.type == MessageType::kDone;
  };
  const auto open = [](HostId, HostId to, const Message& m) {
    return to == kVictim && m.type == MessageType::kOpen;
  };
  const auto commit = [](HostId, HostId to, const Message& m) {
    return to == kVictim && m.type == MessageType::kCommit;
  };
  const Death deaths[] = {
      {"before it hears of the round", nth(1, open), false},
      {"before it sums", nth(1, to_victim(WantKind::kContribution)), true},
      {"when it has delivered one part", nth(1, from_victim(WantKind::kContribution)), true},
      {"when it has delivered all parts",
       nth(kChunks * 2 / 3, from_victim(WantKind::kContribution)), true},
      {"when it has published one result", nth(1, from_victim(WantKind::kResult)), true},
      {"when it has published all results", nth(kChunks * 2 / 3, from_victim(WantKind::kResult)),
       true},
      {"between Done and Commit", nth(1, done), true},
      {"when it is told the Commit", nth(1, commit), true},
  };
  for (const Death& death : deaths) {
    for (const bool is_silent : {false, true}) {
      INFO(death.when << (is_silent ? ", silently" : ""));
      count = 0;
      Cluster cluster(quick_cluster(3, 3));
      once_before(cluster, death.is_the_moment, [&] {
        // The message before which it happens still arrives; what comes after it does not.
        cluster.world.after(Duration(1), [&] { cluster.crash_node(kVictim, is_silent); });
      });
      cluster.start_all();
      REQUIRE(cluster.run_until([&] { return !cluster.is_running(kVictim); }, minutes(1)));
      REQUIRE(cluster.reaches(kRound, seconds(20)));
      const Committed* const committed = commit_of(cluster.node(1), kRound);
      REQUIRE(committed != nullptr);
      // Before it heard of the round it may still have answered nothing.
      if (death.is_in_round && std::string(death.when) != "before it sums") {
        REQUIRE(committed->members.size() == 3);
      }
      REQUIRE(cluster.reaches(kRound + 2, minutes(1)));
      cluster.start_node(kVictim);
      REQUIRE(cluster.all_active(minutes(1)));
      REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(1)));
      REQUIRE(cluster.violations() == "");
      // Nobody else had to do anything for it.
      REQUIRE(cluster.node(1).catch_up_count() == 0);
      REQUIRE(cluster.node(3).catch_up_count() == 0);
    }
  }
}

TEST_CASE("cluster: only the chunks of a dead owner are made again") {
  Cluster cluster(quick_cluster(4, 4));
  std::map<uint32_t, std::set<uint32_t>> attempts;  // By chunk, of the results of round 2.
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (message.authority.round == 2 && is_chunk_of(message, WantKind::kResult)) {
      attempts[message.authority.chunk].insert(message.authority.attempt);
    }
  };
  std::set<uint32_t> moved;
  once_before(
      cluster,
      [](HostId, HostId to, const Message& m) {
        return to == 2 && m.authority.round == 2 && is_chunk_of(m, WantKind::kContribution);
      },
      [&] { cluster.crash_node(2); });
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (message.type != MessageType::kReown || message.authority.round != 2) return;
    const auto reown = decode<Reown>(*message.payload);
    REQUIRE(reown->excluded.size() == 1);
    for (const Reown::Move& move : reown->moves) moved.insert(move.chunk);
  };
  cluster.start_all();
  REQUIRE(cluster.reaches(1, minutes(1)));
  REQUIRE(cluster.run_until([&] { return !cluster.is_running(2); }, minutes(1)));
  REQUIRE(cluster.reaches(2, seconds(20)));
  REQUIRE(moved.size() >= 1);
  REQUIRE(moved.size() <= 2);
  for (const auto& [chunk, of_chunk] : attempts) {
    INFO("chunk " << chunk);
    REQUIRE(of_chunk == std::set<uint32_t>{moved.contains(chunk) ? 2u : 1u});
  }
  REQUIRE(cluster.violations() == "");
}
TEST_CASE("cluster: who owns no chunk dies while another one is late") {
  ClusterOptions options = quick_cluster(7, 4);
  options.trainer.chunk_count = 1;  // So that nothing moves.
  Cluster cluster(options);
  HostId late = 0, victim = 0;
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (message.type != MessageType::kDone || message.authority.round != 3 || late != 0) return;
    std::vector<HostId> by_peer{1, 2, 3, 4};
    std::ranges::sort(by_peer, {}, [&](HostId node) { return cluster.node(node).peer(); });
    std::erase(by_peer, from);
    late = by_peer[1];
    victim = by_peer[2];
    cluster.world.after(Duration(1), [&] { cluster.world.freeze(late); });
    cluster.world.after(milliseconds(400), [&] { cluster.crash_node(victim); });
    cluster.world.after(milliseconds(1500), [&] { cluster.world.thaw(late); });
  };
  cluster.start_all();
  REQUIRE(cluster.reaches(6, minutes(3)));
  for (const HostId node : cluster.running_nodes()) {
    REQUIRE(cluster.node(node).start_count() == 1);
    for (const Committed& committed : cluster.node(node).commits()) REQUIRE(committed.contributed);
  }
  REQUIRE(cluster.violations() == "");
}

// --- Several fragments, large chunks, odd weights.

TEST_CASE("cluster: several fragments are in flight at once") {
  ClusterOptions options = quick_cluster(19, 3);
  options.trainer.fragment_count = 4;
  options.trainer.overlap_steps_max = 100;
  options.trainer.padding_bytes = 5000;
  options.network.bytes_per_second = 50e3;
  Cluster cluster(options);
  std::set<uint32_t> open;
  size_t most = 0;
  cluster.world.on_delivery = [&, before = cluster.world.on_delivery](HostId from, HostId to,
                                                                      Message& message) {
    before(from, to, message);
    if (to != 1) return;
    if (message.type == MessageType::kOpen) open.insert(message.authority.fragment);
    if (message.type == MessageType::kCommit) open.erase(message.authority.fragment);
    most = std::max(most, open.size());
  };
  cluster.start_all();
  REQUIRE(cluster.reaches(4, minutes(3)));
  REQUIRE(most >= 3);
  cluster.crash_node(2);
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(3)));
  cluster.start_node(2);
  REQUIRE(cluster.all_active(minutes(3)));
  REQUIRE(cluster.reaches(cluster.highest_version() + 2, minutes(3)));
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: what waits to be sent is bounded, and heartbeats do not wait for it") {
  ClusterOptions options = quick_cluster(20, 2);
  options.trainer.chunk_count = 24;
  options.trainer.padding_bytes = 1 << 20;
  options.network.bytes_per_second = 4e6;
  Cluster cluster(options);
  cluster.start_all();
  REQUIRE(cluster.reaches(2, minutes(2)));
  const int64_t most = cluster.world.queued_bytes_max();
  REQUIRE(most > kQueuedBytesMax);  // Else nothing was tested.
  REQUIRE(most <= kQueuedBytesMax + 2 * (1 << 20));
  REQUIRE(cluster.coordinator().report().members_lost == 0);
  REQUIRE(cluster.violations() == "");
}

TEST_CASE("cluster: who has no tokens does not contribute, unless nobody has") {
  Cluster cluster(quick_cluster(21, 3));
  cluster.start_all();
  REQUIRE(cluster.reaches(1, minutes(1)));
  cluster.node(2).set_weight(0);
  REQUIRE(cluster.reaches(4, minutes(1)));
  const Committed last = cluster.node(2).commits().back();
  REQUIRE(!last.contributed);
  REQUIRE(last.members.size() == 2);
  REQUIRE(last.weight_tokens == weight_of(1) + weight_of(3));
  for (const HostId node : {1, 3}) cluster.node(node).set_weight(0);
  REQUIRE(cluster.reaches(cluster.highest_version() + 3, minutes(1)));
  REQUIRE(cluster.node(2).commits().back().contributed);
  REQUIRE(cluster.node(2).commits().back().members.size() == 3);
  REQUIRE(cluster.node(2).commits().back().weight_tokens == 0);
}

TEST_CASE("cluster: who does not belong to the run is told so") {
  Cluster cluster(quick_cluster(22, 3));
  MemberOptions wrong_run = cluster.member_options(2);
  wrong_run.run_name = "another";
  cluster.change_member_options(2, wrong_run);
  MemberOptions wrong_config = cluster.member_options(3);
  wrong_config.config.bytes[5] = 99;
  cluster.change_member_options(3, wrong_config);
  cluster.start_all();
  REQUIRE(cluster.reaches(0, seconds(1)));
  REQUIRE(cluster.run_until([&] { return cluster.node(2).stopped() && cluster.node(3).stopped(); },
                            seconds(20)));
  REQUIRE(!cluster.node(2).stopped()->restart_makes_sense);
  REQUIRE(cluster.node(2).stopped()->reason.find("run") != std::string::npos);
  REQUIRE(!cluster.node(3).stopped()->restart_makes_sense);
  REQUIRE(cluster.node(3).stopped()->reason.find("configuration") != std::string::npos);
}

}  // namespace
}  // namespace net
